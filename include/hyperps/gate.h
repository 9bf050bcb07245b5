/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/* Byte offsets in the gate page; HYPERPS_CALL_GATE_SET in abi.h says what they mean. Also for assembly. */
#ifndef HYPERPS_GATE_H
#define HYPERPS_GATE_H

#define HYPERPS_GATE_RETRY 0x76d
#define HYPERPS_GATE_ENTRY 0x775
#define HYPERPS_GATE_RETURN 0x7fa

#endif
