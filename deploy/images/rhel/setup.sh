# What makes an installed RHEL 9, Rocky Linux 9 or AlmaLinux 9 a desktop image: the last step of its kickstart, inside the new system,
# after the archive of `python -m beamdesk.adapters.vmimage archive` was unpacked over it.
here=/var/tmp/beamdesk

# The streaming server, in its own environment: the archive's wheels and no others.
python3.11 -m venv /opt/selkies
/opt/selkies/bin/python3 -m pip --isolated --disable-pip-version-check install --quiet --no-index --no-deps --require-hashes --no-compile \
    --root-user-action=ignore --find-links "$here/wheels" --requirement "$here/requirements.lock"
/opt/selkies/bin/python3 -m pip --isolated uninstall --quiet --yes --root-user-action=ignore pip setuptools
# some packages carry templates that do not compile: they stay as source
python3.11 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/beamdesk/lib /opt/selkies/lib || true

# The look is that of every desktop. Theme, icons, pointer and font have no package here: Xfce's and GNOME's own take their place.
channels=/etc/xdg/xfce4/xfconf/xfce-perchannel-xml
sed -i -e 's/Arc-Darker/Default/' -e 's/Inter Semi-Bold/DejaVu Sans Bold/' $channels/xfwm4.xml
sed -i -e 's/Arc-Darker/Adwaita/' -e 's/elementary-xfce/Adwaita/' -e 's/DMZ-White/Adwaita/' -e 's/Inter 10/DejaVu Sans 10/' \
    $channels/xsettings.xml /etc/gtk-3.0/settings.ini
sed -i 's/Inter Medium/DejaVu Sans/' /usr/local/lib/beamdesk/launchers
sed -i 's#/usr/lib/x86_64-linux-gnu/#/usr/lib64/#' /usr/local/share/dbus-1/services/*.service
sed -i 's/org\.pwmt\.zathura\.desktop/org.gnome.Evince.desktop/' /etc/xdg/mimeapps.list
bash -eu "$here/look.sh"
rm -r "$here"

mkdir -p /data
# Files are created for the group too: experiment folders are shared by a team.
sed -i 's/^UMASK.*/UMASK 002/' /etc/login.defs

# The first boot is small: network, disk size, the agent's two files. Everything else is the guest agent's.
cat > /etc/cloud/cloud.cfg.d/90_beamdesk.cfg <<'CLOUD'
datasource_list: [ConfigDrive, OpenStack, NoCloud, None]
datasource:
  OpenStack: {max_wait: 60, timeout: 10, retries: 5}
users: []
disable_root: true
ssh_deletekeys: false
ssh_genkeytypes: []
preserve_hostname: true
manage_etc_hosts: false
growpart: {mode: auto, devices: [/], ignore_growroot_disabled: false}
resize_rootfs: noblock
cloud_init_modules: [growpart, resizefs, ca-certs, write-files]
cloud_config_modules: []
cloud_final_modules: []
CLOUD
# cloud-init 24.3 gave its services other names
for unit in cloud-init-main cloud-init-local cloud-init-network cloud-init; do
    file=/usr/lib/systemd/system/$unit.service
    if [ -f "$file" ] && [ ! -L "$file" ]; then
        systemctl enable "$unit.service"
    fi
done
systemctl enable beamdesk-guest.service

# Nobody logs in but through the desktop's own door, and nothing runs behind the person's back.
systemctl mask cloud-config.service cloud-final.service getty.target serial-getty@ttyS0.service getty@tty1.service rpcbind.service \
    rpcbind.socket rpc-statd.service rpc-statd-notify.service nfs-blkmap.service rpc-gssd.service dnf-makecache.timer fstrim.timer
# nobody may gain rights by a program, as on every desktop
find / -xdev -perm /6000 -type f -exec chmod ug-s {} +

# What belongs to the machine that this was installed on.
rm -f /etc/NetworkManager/system-connections/* /var/lib/systemd/random-seed /root/*.log
dnf clean all
: > /etc/machine-id

# The archive's files got no SELinux labels: nothing labels what this script has written.
setfiles -F -e /proc -e /sys -e /dev -e /run /etc/selinux/targeted/contexts/files/file_contexts /
