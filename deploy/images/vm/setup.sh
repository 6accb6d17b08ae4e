# Boot: names that do not change with the kernel's version.
cd /boot
ln -sf vmlinuz-* vmlinuz
printf '%s\n' virtio_pci virtio_blk virtio_net virtio_scsi sd_mod sr_mod isofs ext4 nvme >> /etc/initramfs-tools/modules
sed -i -e 's/^MODULES=.*/MODULES=most/' -e 's/^COMPRESS=.*/COMPRESS=zstd/' /etc/initramfs-tools/initramfs.conf
update-initramfs -u
ln -sf initrd.img-* initrd.img
rm -f /vmlinuz /initrd.img /vmlinuz.old /initrd.img.old

# The two first stages of the boot loader, each with the few lines that find the rest.
mkdir -p /boot/grub/i386-pc
early=/var/tmp/early.cfg
# shellcheck disable=SC2016  # root and prefix are the boot loader's variables
printf 'search.fs_label beamdesk-root root\nset prefix=($root)/boot/grub\n' > $early
grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -c $early -p /boot/grub \
    biosdisk part_msdos ext2 search search_label linux normal echo test serial terminal
cp /usr/lib/grub/i386-pc/boot.img /boot/grub/i386-pc/
grub-mkimage -O x86_64-efi -o /boot/grub/bootx64.efi -c $early -p /boot/grub \
    part_msdos part_gpt fat ext2 search search_label linux normal echo test serial terminal efi_gop
rm $early

# The network comes from the cloud, through cloud-init and systemd.
printf 'desktop\n' > /etc/hostname
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
systemctl -q enable systemd-networkd systemd-resolved beamdesk-guest

# All that the first boot has to do is done in cloud-init's first two stages; two more starts of it would only cost time.
systemctl -q mask cloud-config.service cloud-final.service

# Nobody logs in but through the desktop's own door, and nothing runs behind the person's back.
systemctl -q mask getty.target serial-getty@ttyS0.service getty@tty1.service rpcbind.service rpcbind.socket rpc-statd.service \
    rpc-statd-notify.service nfs-blkmap.service rpc-gssd.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer
passwd -q -l root

: > /etc/machine-id
rm -f /var/lib/dbus/machine-id
ldconfig
