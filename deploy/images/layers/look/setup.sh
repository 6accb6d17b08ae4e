# The wallpaper: drawn from its SVG, as a JPEG because that is what the desktop decodes fastest.
mkdir -p /usr/share/backgrounds
rsvg-convert --width 1920 --height 1200 /usr/share/beamdesk/wallpaper.svg -o /tmp/wallpaper.png
/opt/selkies/bin/python3 - <<'PYTHON'
from PIL import Image
Image.open("/tmp/wallpaper.png").convert("RGB").save("/usr/share/backgrounds/beamdesk.jpg", quality=93, subsampling=0)
PYTHON
rm /tmp/wallpaper.png

# One click away in every desktop, with pictures of one family.
cd /usr/share/applications
sed -i 's/^Icon=.*/Icon=beamdesk-terminal/' xfce4-terminal.desktop
sed -i -e '/^Name\[/d' -e 's/^Name=Xfce Terminal/Name=Terminal\nName[zh_CN]=终端/' xfce4-terminal.desktop
# from a desktop icon it would open in the folder of icons
sed -i "s/^Exec=xfce4-terminal$/Exec=sh -c 'cd; exec xfce4-terminal'/" xfce4-terminal.desktop
sed -i 's/^Icon=.*/Icon=beamdesk-editor/' org.xfce.mousepad.desktop
sed -i -e '/^Name\[/d' -e 's/^Name=Mousepad/Name=Text editor\nName[zh_CN]=文本编辑器/' org.xfce.mousepad.desktop
sed -i -e '/^Name\[/d' -e 's/^Name=.*/Name=Sound volume\nName[zh_CN]=音量/' pavucontrol.desktop
/usr/local/lib/beamdesk/launchers beamdesk-data xfce4-terminal org.xfce.mousepad

# What has no place in a desktop that comes from a browser: it would only ask questions or fail.
for name in xfce4-accessibility-settings xfce-backdrop-settings xfce4-mail-reader xfce4-web-browser thunar-volume-manager-settings \
    thunar-bulk-rename xfce-display-settings xfce4-color-settings xfce4-mime-settings panel-preferences panel-desktop-handler \
    xfce4-about vim org.pwmt.zathura-pdf-poppler xfce4-file-manager xfce4-terminal-emulator thunar-settings htop \
    xfce4-notifyd-config xfce-workspaces-settings xfce-wmtweaks-settings; do
    if [ -f "$name.desktop" ]; then
        printf 'NoDisplay=true\n' > /tmp/extra
        sed -i '/^NoDisplay=/d' "$name.desktop"
        sed -i '/^\[Desktop Entry\]/r /tmp/extra' "$name.desktop"
    fi
done
rm -f /tmp/extra
rm -rf /etc/xdg/autostart

# Everything that programs would otherwise work out when they start.
gtk-update-icon-cache --quiet --force /usr/share/icons/hicolor
update-desktop-database -q || true
