# Install the driver for the kernel of the image, not for the one that runs while the image is built.
driver=$(ls /var/tmp/nvidia/NVIDIA-Linux-x86_64-*.run 2>/dev/null | head -n 1)
if [ -z "$driver" ]; then
    echo "no NVIDIA-Linux-x86_64-*.run in deploy/images/nvidia/driver: download it where your site has its licence" >&2
    exit 1
fi
kernel=$(ls /lib/modules | grep -v cloud | sort -V | tail -n 1)
sh "$driver" --silent --no-questions --ui=none --kernel-name="$kernel" --no-nouveau-check --no-x-check --no-distro-scripts \
    --no-systemd --skip-module-load --tmpdir=/var/tmp
rm -rf /var/tmp/nvidia

# The open driver would take the card first.
printf 'blacklist nouveau\noptions nouveau modeset=0\n' > /etc/modprobe.d/nouveau.conf
printf 'nvidia\nnvidia-uvm\n' > /etc/modules-load.d/nvidia.conf

# A GPU machine boots this kernel.
apt-get purge -y -q 'linux-image-cloud-amd64' 'linux-image-*-cloud-amd64' build-essential
apt-get autoremove -y -q
depmod "$kernel"
update-initramfs -u -k "$kernel"
cd /boot
ln -sf "vmlinuz-$kernel" vmlinuz
ln -sf "initrd.img-$kernel" initrd.img
rm -f /vmlinuz /initrd.img /vmlinuz.old /initrd.img.old
