cd /usr/share/applications
for name in silx pymca* PyMca* edfviewer* elementsinfo* mca2edf* peakidentifier* pymcabatch* pymcapostbatch* pymcaroitool* rgbcorrelator* \
    org.silx* pyFAI* pyfai* jupyter* python3*; do
    for entry in "$name".desktop $name; do
        if [ -f "$entry" ]; then rm "$entry"; fi
    done
done
sed -i -e '/^NoDisplay=/d' -e 's/^\[Desktop Entry\]/&\nNoDisplay=true/' firefox-esr.desktop
update-desktop-database -q || true
/usr/local/lib/beamdesk/launchers beamdesk-data beamdesk-calibration beamdesk-integration beamdesk-viewer xfce4-terminal org.xfce.mousepad
