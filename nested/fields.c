// SPDX-License-Identifier: MIT
/* The fields of a VMCS12: which there are, what becomes of each (docs/nested.md, "Fields"). */
#include "nested.h"

#define SAVED NESTED_SAVED
#define R NESTED_SHADOW_READ
#define RW (NESTED_SHADOW_READ | NESTED_SHADOW_WRITE)

const struct nested_field nested_fields[] = {
	{ 0x0000, 0x0000, NESTED_OWN, 0 }, /* VPID */
	{ 0x0800, 0x080e, NESTED_COPY, SAVED }, /* guest ES to TR selectors */
	{ 0x0c00, 0x0c06, NESTED_HOST, 0 }, /* host ES to DS selectors */
	{ 0x0c08, 0x0c0a, NESTED_HOST, RW }, /* host FS, GS selectors */
	{ 0x0c0c, 0x0c0c, NESTED_HOST, 0 }, /* host TR selector */
	{ 0x2004, 0x200a, NESTED_OWN, 0 }, /* MSR bitmap, MSR lists */
	{ 0x2010, 0x2010, NESTED_COPY, 0 }, /* TSC offset */
	{ 0x201a, 0x201a, NESTED_OWN, 0 }, /* EPT pointer */
	{ 0x202c, 0x202c, NESTED_KEEP, 0 }, /* XSS-exiting bitmap */
	{ 0x2400, 0x2400, NESTED_INFO, R }, /* guest-physical address */
	{ 0x2800, 0x2800, NESTED_OWN, 0 }, /* link pointer */
	{ 0x2802, 0x2806, NESTED_MASK, SAVED }, /* guest DEBUGCTL, PAT, EFER */
	{ 0x2808, 0x2808, NESTED_MASK, 0 }, /* guest PERF_GLOBAL_CTRL */
	{ 0x280a, 0x2810, NESTED_COPY, SAVED }, /* PDPTEs */
	{ 0x2c00, 0x2c04, NESTED_HOST, 0 }, /* host PAT, EFER, PERF_GLOBAL_CTRL */
	{ 0x4000, 0x4000, NESTED_MASK, 0 }, /* pin-based controls */
	{ 0x4002, 0x4002, NESTED_MASK, RW }, /* primary controls */
	{ 0x4004, 0x4004, NESTED_MASK, 0 }, /* exception bitmap */
	{ 0x4006, 0x4008, NESTED_COPY, 0 }, /* page-fault mask, match */
	{ 0x400a, 0x400c, NESTED_MASK, 0 }, /* CR3-target count, exit controls */
	{ 0x400e, 0x4010, NESTED_OWN, 0 }, /* exit MSR-store, MSR-load count */
	{ 0x4012, 0x4012, NESTED_MASK, 0 }, /* entry controls */
	{ 0x4014, 0x4014, NESTED_OWN, 0 }, /* entry MSR-load count */
	{ 0x4016, 0x4016, NESTED_MASK, RW }, /* entry interruption information */
	{ 0x4018, 0x401a, NESTED_COPY, RW }, /* entry exception error code, instruction length */
	{ 0x401e, 0x401e, NESTED_MASK, 0 }, /* secondary controls */
	{ 0x4020, 0x4022, NESTED_COPY, 0 }, /* PLE gap, window */
	{ 0x4400, 0x4400, NESTED_INFO, 0 }, /* VM-instruction error */
	{ 0x4402, 0x440c, NESTED_INFO, R }, /* exit reason to exit instruction length */
	{ 0x440e, 0x440e, NESTED_INFO, 0 }, /* instruction information */
	{ 0x4800, 0x4814, NESTED_COPY, SAVED }, /* guest limits, ES access rights */
	{ 0x4816, 0x4818, NESTED_COPY, SAVED | R }, /* guest CS, SS access rights */
	{ 0x481a, 0x4822, NESTED_COPY, SAVED }, /* guest DS to TR access rights */
	{ 0x4824, 0x4824, NESTED_MASK, SAVED | RW }, /* guest interruptibility */
	{ 0x4826, 0x4826, NESTED_MASK, SAVED }, /* guest activity */
	{ 0x4828, 0x4828, NESTED_KEEP, 0 }, /* SMBASE */
	{ 0x482a, 0x482a, NESTED_COPY, SAVED }, /* guest SYSENTER_CS */
	{ 0x4c00, 0x4c00, NESTED_HOST, 0 }, /* host SYSENTER_CS */
	{ 0x6000, 0x6006, NESTED_OWN, 0 }, /* CR0, CR4 mask, CR0, CR4 read shadow */
	{ 0x6400, 0x6400, NESTED_INFO, R }, /* exit qualification */
	{ 0x6402, 0x6408, NESTED_INFO, 0 }, /* I/O RCX, RSI, RDI, RIP */
	{ 0x640a, 0x640a, NESTED_INFO, R }, /* guest linear address */
	{ 0x6800, 0x6800, NESTED_MASK, SAVED }, /* guest CR0 */
	{ 0x6802, 0x6802, NESTED_COPY, SAVED | R }, /* guest CR3 */
	{ 0x6804, 0x6804, NESTED_MASK, SAVED }, /* guest CR4 */
	{ 0x6806, 0x6806, NESTED_COPY, SAVED }, /* guest ES base */
	{ 0x6808, 0x6808, NESTED_COPY, SAVED | R }, /* guest CS base */
	{ 0x680a, 0x681a, NESTED_COPY, SAVED }, /* guest SS to TR bases, GDTR, IDTR base, DR7 */
	{ 0x681c, 0x6820, NESTED_COPY, SAVED | RW }, /* guest RSP, RIP, RFLAGS */
	{ 0x6822, 0x6826, NESTED_COPY, SAVED }, /* guest pending debug exceptions, SYSENTER_ESP, EIP */
	{ 0x6c00, 0x6c04, NESTED_HOST, 0 }, /* host CR0, CR3, CR4 */
	{ 0x6c06, 0x6c08, NESTED_HOST, RW }, /* host FS, GS base */
	{ 0x6c0a, 0x6c12, NESTED_HOST, 0 }, /* host TR, GDTR, IDTR base, SYSENTER_ESP, EIP */
	{ 0x6c14, 0x6c14, NESTED_HOST, RW }, /* host RSP */
	{ 0x6c16, 0x6c16, NESTED_HOST, 0 }, /* host RIP */
};

const unsigned nested_field_count = ARRAY_SIZE(nested_fields);

const struct nested_field *nested_field(u64 encoding)
{
	for (unsigned i = 0; i < ARRAY_SIZE(nested_fields); i++)
		if (encoding >= nested_fields[i].first && encoding <= nested_fields[i].last && !(encoding & 1))
			return &nested_fields[i];
	return NULL;
}
