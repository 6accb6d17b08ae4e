"""Makes virtual machine images of the recipes in ``deploy/images/``.

They are the layers that containers use, with one more below the guest agent, on a disk that boots by itself.

``python -m beamdesk.adapters.vmimage build general --out general.qcow2`` writes::

    general.qcow2            the disk: BIOS and UEFI boot, grows to the flavor's size at first boot
    general.qcow2.json       its manifest: content hash, SHA-256 and the properties that Glance gets with it
    general.qcow2.vmlinuz    with --kernel: the kernel and
    general.qcow2.initrd     its initramfs, for clouds that boot a kernel directly

``python -m beamdesk.adapters.vmimage upload general.qcow2 --cloud NAME`` puts it into Glance. Building runs as root and
needs the packages of ``deploy/packages-vm.txt``; it must not know desktops, people or a running deployment.

``python -m beamdesk.adapters.vmimage archive --out beamdesk-el9.tar.gz`` packs agent, streaming server and look for the kickstart
of the RHEL family (``deploy/images/rhel/``). It needs pip only.
"""
