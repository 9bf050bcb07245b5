// SPDX-License-Identifier: MIT
#include "apic.h"
#include "monitor.h"

#define APIC_ICR_LOW 0x300
#define APIC_ICR_HIGH 0x310
#define ICR_ASSERT BIT(14)
#define ICR_PENDING BIT(12)
#define ICR_ALL_BUT_SELF (3ULL << 18)

static volatile u32 *apic_register(u32 offset)
{
	return (volatile u32 *)(MONITOR_APIC_VA + offset);
}

void apic_send_to_others(u32 command)
{
	u64 value = command | ICR_ASSERT | ICR_ALL_BUT_SELF;
	u32 high;

	if (rdmsr(MSR_IA32_APIC_BASE) & APIC_BASE_X2APIC) {
		wrmsr(MSR_IA32_X2APIC_ICR, value);
		return;
	}
	high = *apic_register(APIC_ICR_HIGH);
	*apic_register(APIC_ICR_LOW) = (u32)value;
	for (u32 i = 0; i < 1000 && (*apic_register(APIC_ICR_LOW) & ICR_PENDING); i++)
		delay_us(10);
	*apic_register(APIC_ICR_HIGH) = high;
}
