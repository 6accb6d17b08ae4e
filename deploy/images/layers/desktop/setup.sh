# Everything that programs would otherwise work out when they start.
fc-cache --system-only --force
for theme in /usr/share/icons/*/; do
    if [ -f "$theme/index.theme" ]; then gtk-update-icon-cache --quiet --force "$theme"; fi
done
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.11 || true
