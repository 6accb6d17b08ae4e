# Install the driver for the kernel of the image, not for the one that runs while the image is built.
from=/var/tmp/nvidia
shopt -s nullglob
drivers=("$from"/NVIDIA-Linux-x86_64-*.run)
if [ "${#drivers[@]}" -ne 1 ]; then
    echo "deploy/images/nvidia/driver must have one NVIDIA-Linux-x86_64-*.run: download it where your site has its licence" >&2
    exit 1
fi
kernels=(/boot/vmlinuz-*[0-9]-amd64) # the cloud kernel's name ends in -cloud-amd64
kernel=${kernels[-1]#/boot/vmlinuz-}
# Which of its two kinds of modules, "open" (Turing and newer; Blackwell has no other) or "proprietary": the installer would look which
# cards this machine has. Drivers before 560 do not know the option: no file then.
kind=()
if [ -f "$from/kernel-module-type" ]; then
    kind=("--kernel-module-type=$(cat "$from/kernel-module-type")")
fi
sh "${drivers[0]}" --silent --no-questions --ui=none --kernel-name="$kernel" --no-nouveau-check --no-x-check --no-distro-scripts \
    --skip-module-load --tmpdir=/var/tmp "${kind[@]}"

# A virtual card (vGPU) works at full speed with a licence only: the site's token and the daemon's settings.
if [ -x /usr/bin/nvidia-gridd ]; then
    install -d /etc/nvidia/ClientConfigToken
    for token in "$from"/*.tok; do
        install -m 0744 "$token" /etc/nvidia/ClientConfigToken/
    done
    if [ -f "$from/gridd.conf" ]; then
        install -m 0644 "$from/gridd.conf" /etc/nvidia/gridd.conf
    fi
    systemctl -q enable nvidia-gridd.service
fi
rm -rf "$from"

# The open driver would take the card first.
printf 'blacklist nouveau\noptions nouveau modeset=0\n' > /etc/modprobe.d/nouveau.conf
printf 'nvidia\nnvidia-uvm\n' > /etc/modules-load.d/nvidia.conf
# Programs make the card's device files with a set-uid helper, which images do not have: udev calls it as root, once there is a card.
printf '%s\n' 'ACTION=="add|bind", SUBSYSTEM=="pci", DRIVER=="nvidia", RUN+="/usr/bin/nvidia-modprobe -c 0 -u"' \
    > /etc/udev/rules.d/70-nvidia.rules

# A GPU machine boots this kernel.
apt-get purge -y -q 'linux-image-cloud-amd64' 'linux-image-*-cloud-amd64' build-essential
apt-get autoremove -y -q
depmod "$kernel"
update-initramfs -u -k "$kernel"
cd /boot
ln -sf "vmlinuz-$kernel" vmlinuz
ln -sf "initrd.img-$kernel" initrd.img
rm -f /vmlinuz /initrd.img /vmlinuz.old /initrd.img.old
