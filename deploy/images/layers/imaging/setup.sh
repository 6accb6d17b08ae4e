# Packages bring menu entries of their own for the same programs; ours are in the desktop's two languages.
cd /usr/share/applications
for name in silx pymca* PyMca* edfviewer* elementsinfo* mca2edf* peakidentifier* pymcabatch* pymcapostbatch* pymcaroitool* rgbcorrelator* \
    org.silx* jupyter* python3*; do
    for entry in "$name".desktop $name; do
        if [ -f "$entry" ]; then rm "$entry"; fi
    done
done

# There is no web to browse: Firefox is JupyterLab's window.
sed -i -e '/^NoDisplay=/d' -e 's/^\[Desktop Entry\]/&\nNoDisplay=true/' firefox-esr.desktop

# Beamdesk's own tools.
sh /opt/beamdesk/science/install.sh
rm -rf /opt/beamdesk/science

gtk-update-icon-cache --quiet --force /usr/share/icons/hicolor
update-desktop-database -q || true
/usr/local/lib/beamdesk/launchers beamdesk-data beamdesk-slices beamdesk-reconstruct beamdesk-viewer beamdesk-notebook beamdesk-spectra \
    xfce4-terminal org.xfce.mousepad
