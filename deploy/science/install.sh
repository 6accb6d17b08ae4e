#!/bin/sh
# Install the science tools into the image that is being built. Needs the virtual environment /opt/science (with Debian's packages).
set -eu
here=$(dirname "$(readlink -f "$0")")
site=$(echo /opt/science/lib/python3.*/site-packages)
rm -rf "$site/beamdesk_science"
cp -r "$here/beamdesk_science" "$site/"
rm -rf "$site/beamdesk_science/__pycache__"
/opt/science/bin/python3 -m compileall -q --invalidation-mode unchecked-hash "$site/beamdesk_science"
install -D -m 755 -t /usr/local/bin "$here"/bin/*
install -D -m 644 -t /usr/share/applications "$here"/applications/*.desktop
install -D -m 644 -t /usr/share/beamdesk-science "$here"/notebooks/reconstruct.ipynb
