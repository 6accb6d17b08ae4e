# What makes a Windows installation a desktop image: virtio guest tools, cloudbase-init, remote desktop for the stream host only, and then
# sysprep. Runs once, in audit mode, from a disc with the other files of this folder and the two installers beside it. Parsed by our tests,
# not run. It writes C:\Windows\Temp\beamdesk-setup.log; if it stops, the machine stays up and shows why.
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest
Start-Transcript -Path (Join-Path $env:SystemRoot 'Temp\beamdesk-setup.log') | Out-Null

function Install-Msi([string]$Name, [string[]]$Properties = @()) {
    $file = Join-Path $PSScriptRoot $Name
    if (-not (Test-Path $file)) { throw "$Name is missing beside setup.ps1" }
    $result = Start-Process msiexec.exe -ArgumentList (@('/i', "`"$file`"", '/qn', '/norestart') + $Properties) -Wait -PassThru
    if ($result.ExitCode -notin 0, 3010) { throw "$Name failed with $($result.ExitCode)" }
}

Install-Msi 'virtio-win-gt-x64.msi'
# the service runs as the system: the installer would make an administrator for it otherwise
Install-Msi 'CloudbaseInitSetup_x64.msi' 'RUN_SERVICE_AS_LOCAL_SYSTEM=1'
$conf = Join-Path $env:ProgramFiles 'Cloudbase Solutions\Cloudbase-Init\conf'
Copy-Item (Join-Path $PSScriptRoot 'cloudbase-init.conf') $conf -Force
Set-Service cloudbase-init -StartupType Automatic

# Remote desktop with network level authentication and TLS: the stream host signs in with the person's own credentials. As policies, which
# sysprep leaves alone; clone.xml says the same once more.
$policy = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows NT\Terminal Services'
New-Item $policy -Force | Out-Null
$values = @{
    fDenyTSConnections = 0; UserAuthentication = 1; SecurityLayer = 2; MinEncryptionLevel = 3
    # drives, printers and ports of the stream host stay its own; the clipboard is allowed
    fDisableCdm = 1; fDisableCpm = 1; fDisableLPT = 1; fDisableCcm = 1; fDisablePNPRedir = 1
}
foreach ($name in $values.Keys) {
    Set-ItemProperty $policy -Name $name -Value $values[$name] -Type DWord
}

# The firewall lets remote desktop in, by the rules' group, whose name is the same in every language; where the site has put the addresses of
# its stream hosts on the disc, one a line, from there only.
$group = '@FirewallAPI.dll,-28752'
Set-NetFirewallProfile -All -Enabled True -DefaultInboundAction Block
Enable-NetFirewallRule -Group $group
$hosts = Join-Path $PSScriptRoot 'stream-hosts.txt'
if (Test-Path $hosts) {
    $addresses = @(Get-Content $hosts | ForEach-Object { $_.Trim() } | Where-Object { $_ })
    Set-NetFirewallRule -Group $group -RemoteAddress $addresses
}

# A desktop that comes from a browser neither sleeps nor asks.
powercfg /hibernate off
powercfg /change standby-timeout-ac 0
powercfg /change monitor-timeout-ac 0

# Audit mode opens sysprep's window, and only one may run. The built-in Administrator, which audit mode signs in, is disabled by sealing.
Get-Process -Name sysprep -ErrorAction SilentlyContinue | Stop-Process -Force
$sysprep = Join-Path $env:SystemRoot 'System32\Sysprep'
Copy-Item (Join-Path $PSScriptRoot 'clone.xml') $sysprep -Force
Stop-Transcript | Out-Null
& "$sysprep\sysprep.exe" /generalize /oobe /shutdown /quiet "/unattend:$sysprep\clone.xml"
