# SPDX-License-Identifier: MIT
# The programs that run inside the booted host, and the test initrds: the host's initrd with /test. See README.md.
TEST_SCRIPTS := vmx_absent vm_compute cpus efi nmi after_kexec status_json exits_json frames_json vm_donate vm_views vm_bench vm_run gate gate_sweep guests demo kernel_log reboot vcpu_load power private_page private_fatal kexec_crash drivers soak check exits kvm kvm.sh kvm_start kvm_after kvm_exits bench_json
TEST_PROGRAMS := perf_msr kexec_same workload ticks kvm_bench vm_device vcpu_device guest_bench vault_client vcpu_cycles move_threads ports private_access msr_sweep vm_fill efi_table kvm_probe
TEST_BINARIES := $(TEST_PROGRAMS:%=$(BUILD)/guestfs/%)
# Modules of the stock kernel's own: what `drivers` loads, and KVM also for `make bench`.
STOCK_MODULES := efivarfs irqbypass kvm kvm-intel msr cpuid acpi-cpufreq pcc-cpufreq cpufreq_ondemand intel-cstate intel-uncore rapl \
	intel_rapl_common intel_rapl_msr x86_pkg_temp_thermal intel_powerclamp
STOCK_MODULES_generic := $(STOCK_MODULES) coretemp mce-inject intel-uncore-frequency-common intel-uncore-frequency isst_if_common \
	isst_if_mbox_msr
STOCK_MODULES_cloud := $(STOCK_MODULES) iosf_mbi
STOCK_MODULES_cloud-6.12 := $(STOCK_MODULES_cloud)
STOCK_MODULES_cloud-7 := $(STOCK_MODULES_cloud)
TEST_CLIENT := $(HPSCTL_CLIENT) test/guestfs/tap.c
VAULT_CLIENT := $(TEST_CLIENT) host/hpsctl/keyvault.c host/guests/hmac.c

$(BUILD)/guestfs/%: test/guestfs/%.c $(TEST_CLIENT) test/guestfs/tap.h $(HPSCTL_HEADERS)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(HOST_CFLAGS) -o $@ $< $(TEST_CLIENT)

$(BUILD)/guestfs/private_access $(BUILD)/guestfs/kexec_same: test/modules/private_page.h
$(BUILD)/guestfs/vm_fill $(BUILD)/guestfs/vmcore: test/guestfs/dump_text.h

$(BUILD)/guestfs/vault_client: test/guestfs/vault_client.c $(VAULT_CLIENT) $(HPSCTL_HEADERS) $(wildcard host/guests/*.h)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(HOST_CFLAGS) -o $@ $< $(VAULT_CLIENT)

KVM_PROBE := test/guestfs/kvm_vm.c test/guestfs/kvm_guest.S
$(BUILD)/guestfs/kvm_probe: test/guestfs/kvm_probe.c $(KVM_PROBE) test/guestfs/kvm_vm.h test/guestfs/kvm_guest.h $(TEST_CLIENT) $(HPSCTL_HEADERS)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(HOST_CFLAGS) -o $@ $< $(KVM_PROBE) $(TEST_CLIENT)

$(BUILD)/guestfs/msr_sweep: test/guestfs/msr_sweep.c vmx/msr_policy.c vmx/msr_policy.h $(TEST_CLIENT) $(HPSCTL_HEADERS)
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) $(HOST_CFLAGS) -Ivmx -o $@ $< vmx/msr_policy.c $(TEST_CLIENT)

# What the kernels started by kexec_same run.
MAKEDUMPFILE := /usr/bin/makedumpfile
KEXEC_FILES := $(foreach s,after_kexec after_crash kexec_early kvm.sh,test/$(s)=test/guestfs/$(s)) $(foreach p,vmcore kvm_probe,test/$(p)=$(BUILD)/guestfs/$(p)) \
	bin/makedumpfile=$(MAKEDUMPFILE) $(foreach l,$(shell ldd $(MAKEDUMPFILE) | grep -o '/[^ ]*'),$(l:/%=%)=$(l)) \
	test/lib.sh=host/attacks/lib.sh $(foreach p,vmx_ring3 gate_ring3,test/$(p)=$(BUILD)/attack-programs/$(p))
$(BUILD)/initrd-kexec-%.img: host/image/mkinitrd host/image/init $(BUILD)/hpsctl $(BUILD)/modules/%/hyperps.ko \
		$(foreach f,$(KEXEC_FILES),$(lastword $(subst =, ,$(f))))
	$(call quiet,INITRD)host/image/mkinitrd --output $@ $(call initrd_files,$*) $(KEXEC_FILES) $(foreach m,irqbypass kvm kvm-intel, \
		test/modules/$(m).ko=$$(find $(CACHE)/kernels/$* -path '*/modules/*' -name '$(m).ko*'))

# $(1) is the flavour.
test_initrd_files = $(call initrd_files,$(1)) $(call attack_files,$(1)) \
	$(foreach s,$(TEST_SCRIPTS),test/$(s)=test/guestfs/$(s)) \
	$(foreach p,$(TEST_PROGRAMS),test/$(p)=$(BUILD)/guestfs/$(p)) \
	$(foreach g,$(GUESTS),guests/$(g)=$(BUILD)/guests/$(g)) \
	$(foreach m,$(TEST_MODULES),test/modules/$(m).ko=$(BUILD)/test-modules/$(1)/$(m).ko) \
	test/vmlinuz=$(CACHE)/kernels/$(1)/vmlinuz test/kexec-initrd.img=$(BUILD)/initrd-kexec-$(1).img

$(BUILD)/initrd-test-%.img: host/image/mkinitrd host/image/init $(BUILD)/hpsctl $(BUILD)/modules/%/hyperps.ko $(TEST_BINARIES) $(GUEST_BINARIES) \
		$(TEST_SCRIPTS:%=test/guestfs/%) $(ATTACK_SCRIPTS) $(ATTACK_BINARIES) test/guestfs/microcode.py \
		$(BUILD)/attack-modules/%/modules.order $(BUILD)/test-modules/%/modules.order \
		$(CACHE)/kernels/%/vmlinuz $(BUILD)/initrd-kexec-%.img
	$(call quiet,INITRD)host/image/mkinitrd --output $@ $(call test_initrd_files,$*) $(foreach m,$(STOCK_MODULES_$*),test/modules/$(m).ko=$$(find \
		$(CACHE)/kernels/$* -path '*/modules/*' -name '$(m).ko*')) && \
		test/guestfs/microcode.py $@.early && cat $@ >>$@.early && mv $@.early $@

# For test/live/dma.py: the host's initrd, and drivers in the order in which they load; names that a kernel lacks are left out.
DMA_MODULES := crct10dif_common crc-t10dif crc64 crc64-rocksoft t10-pi nvme-core nvme scsi_common scsi_mod libata libahci ahci sd_mod \
	virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover virtio_net e1000e \
	usb-common usbcore xhci-hcd xhci-pci hid usbhid hid-generic
$(BUILD)/initrd-dma-%.img: $(BUILD)/initrd-%.img test/guestfs/dma_load test/guestfs/guestfs.mk
	@printf '%s\n' $(DMA_MODULES) >$(BUILD)/dma-modules
	$(call quiet,INITRD)host/image/mkinitrd --output $@.drivers test/dma_load=test/guestfs/dma_load test/modules/list=$(BUILD)/dma-modules \
		$$(for name in $(DMA_MODULES); do find $(CACHE)/kernels/$* -path '*/modules/*' -name "$$name.ko*" -printf "test/modules/$$name.ko=%p "; done) && \
		cat $< $@.drivers >$@ && rm $@.drivers

# For test/live/kvm.py: the test initrd, drivers of the disk that has QEMU, and what QEMU's guest boots.
KVM_DISK_MODULES := scsi_common scsi_mod libata ata_piix sd_mod irqbypass kvm
KVM_GUEST_MODULES := virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk failover net_failover virtio_net \
	virtio_balloon
KVM_QEMU_FILES := test/kvm_qemu=test/guestfs/kvm_qemu test/kvm_work=test/guestfs/kvm_work
# $(1): a flavour, $(2): names of modules, $(3): the folder that they come to
stock_modules = $$(for name in $(2); do find $(CACHE)/kernels/$(1) -path '*/modules/*' -name "$$name.ko*" -printf "$(3)/$$name.ko=%p "; done)
$(BUILD)/kvm-guest-%.img: host/image/mkinitrd test/guestfs/kvm_guest_init test/guestfs/kvm_work test/guestfs/guestfs.mk $(CACHE)/kernels/%/vmlinuz
	@mkdir -p $(@D)
	@printf '%s\n' $(KVM_GUEST_MODULES) >$@.list
	$(call quiet,INITRD)host/image/mkinitrd --output $@ init=test/guestfs/kvm_guest_init work=test/guestfs/kvm_work modules/list=$@.list \
		$(call stock_modules,$*,$(KVM_GUEST_MODULES),modules)
$(BUILD)/initrd-kvm-%.img: $(BUILD)/initrd-test-%.img $(BUILD)/kvm-guest-%.img test/guestfs/kvm_qemu test/guestfs/kvm_work test/guestfs/guestfs.mk
	@printf '%s\n' $(KVM_DISK_MODULES) >$(BUILD)/kvm-modules
	$(call quiet,INITRD)host/image/mkinitrd --output $@.more $(KVM_QEMU_FILES) test/kvm-guest.img=$(BUILD)/kvm-guest-$*.img \
		test/modules/kvm-list=$(BUILD)/kvm-modules \
		$$(for name in $(KVM_DISK_MODULES); do find $(CACHE)/kernels/$* -path '*/modules/*' -name "$$name.ko*" -printf "test/modules/$$name.ko=%p "; done) && \
		cat $< $@.more >$@ && rm $@.more

# The same, with newer kernels for the guest.
$(BUILD)/initrd-kvm-kernels-%.img: $(BUILD)/initrd-kvm-%.img $(foreach f,$(NEWER_FLAVOURS),$(BUILD)/kvm-guest-$(f).img)
	$(call quiet,INITRD)host/image/mkinitrd --output $@.more $(foreach f,$(NEWER_FLAVOURS),test/vmlinuz-$(f)=$(CACHE)/kernels/$(f)/vmlinuz \
		test/release-$(f)=$(CACHE)/kernels/$(f)/release test/kvm-guest-$(f).img=$(BUILD)/kvm-guest-$(f).img) && cat $< $@.more >$@ && rm $@.more

# What libvirt's VMs boot in test/live/kvm_libvirt.py, with the modules of their power button.
$(BUILD)/libvirt-guest.img: host/image/mkinitrd test/guestfs/libvirt_guest_init $(CACHE)/kernels/cloud/vmlinuz
	@mkdir -p $(@D)
	$(call quiet,INITRD)host/image/mkinitrd --output $@ init=test/guestfs/libvirt_guest_init \
		$$(for name in button evdev; do find $(CACHE)/kernels/cloud -path '*/modules/*' -name "$$name.ko*" -printf "modules/$$name.ko=%p "; done)

# For test/live/kvm_unit_host.py, which adds the programs: the host's initrd, and the same drivers.
KVM_UNIT_SCRIPTS := kvm_unit kernel_log status_json kvm_exits
$(BUILD)/initrd-kvm-unit-%.img: $(BUILD)/initrd-%.img $(KVM_UNIT_SCRIPTS:%=test/guestfs/%) host/attacks/lib.sh test/guestfs/guestfs.mk
	@printf '%s\n' $(KVM_DISK_MODULES) >$(BUILD)/kvm-modules
	$(call quiet,INITRD)host/image/mkinitrd --output $@.more $(foreach s,$(KVM_UNIT_SCRIPTS),test/$(s)=test/guestfs/$(s)) \
		test/lib.sh=host/attacks/lib.sh test/modules/kvm-list=$(BUILD)/kvm-modules \
		$$(for name in $(KVM_DISK_MODULES) kvm-intel; do find $(CACHE)/kernels/$* -path '*/modules/*' -name "$$name.ko*" -printf "test/modules/$$name.ko=%p "; done) && \
		cat $< $@.more >$@ && rm $@.more

.SECONDARY: $(TEST_BINARIES) $(BUILD)/guestfs/vmcore $(foreach f,$(FLAVOURS) $(NEWER_FLAVOURS),$(BUILD)/initrd-kexec-$(f).img $(BUILD)/kvm-guest-$(f).img $(BUILD)/test-modules/$(f)/modules.order)
