# What makes a Windows installation a desktop image: remote desktop for the stream host only, cloudbase-init, virtio guest tools, and then
# sysprep. Runs once, while the image is made, from a disc with the two installers beside it. Not run by Beamdesk's own tests.
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest
$here = Split-Path -Parent $MyInvocation.MyCommand.Path

function Install-Package([string]$Name) {
    $file = Join-Path $here $Name
    if (-not (Test-Path $file)) { throw "$Name is missing beside setup.ps1" }
    $result = Start-Process msiexec.exe -ArgumentList '/i', "`"$file`"", '/qn', '/norestart' -Wait -PassThru
    if ($result.ExitCode -notin 0, 3010) { throw "$Name failed with $($result.ExitCode)" }
}

Install-Package 'virtio-win-gt-x64.msi'
Install-Package 'CloudbaseInitSetup_x64.msi'
$conf = Join-Path $env:ProgramFiles 'Cloudbase Solutions\Cloudbase-Init\conf'
Copy-Item (Join-Path $here 'cloudbase-init.conf') $conf -Force

# Remote desktop with network level authentication and TLS: the stream host signs in with the person's own credentials.
$server = 'HKLM:\SYSTEM\CurrentControlSet\Control\Terminal Server'
Set-ItemProperty $server -Name fDenyTSConnections -Value 0
Set-ItemProperty "$server\WinStations\RDP-Tcp" -Name UserAuthentication -Value 1
Set-ItemProperty "$server\WinStations\RDP-Tcp" -Name SecurityLayer -Value 2
Set-ItemProperty "$server\WinStations\RDP-Tcp" -Name MinEncryptionLevel -Value 3
# drives, printers and ports of the stream host stay its own; the clipboard is allowed
$policy = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows NT\Terminal Services'
New-Item $policy -Force | Out-Null
foreach ($name in 'fDisableCdm', 'fDisableCpm', 'fDisableLPT', 'fDisableCcm', 'fDisablePNPRedir') {
    Set-ItemProperty $policy -Name $name -Value 1 -Type DWord
}
Set-NetFirewallProfile -All -Enabled True -DefaultInboundAction Block
Enable-NetFirewallRule -DisplayGroup 'Remote Desktop'

# A desktop that comes from a browser neither sleeps nor asks.
powercfg /hibernate off
powercfg /change standby-timeout-ac 0
powercfg /change monitor-timeout-ac 0
Disable-LocalUser -Name 'Administrator'

& "$env:SystemRoot\System32\Sysprep\sysprep.exe" /generalize /oobe /shutdown /quiet
