"""Windows: its answer files against the documented passes and components, its script through a parser, cloudbase-init's own options."""

import ast
import configparser
import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import tree_sitter
import tree_sitter_powershell
from cloudbaseinit.conf import factory
from oslo_config import cfg
from oslo_log import log

FOLDER = Path(__file__).parents[3] / "deploy/images/windows"
CONF = FOLDER / "cloudbase-init.conf"
SCRIPT = (FOLDER / "setup.ps1").read_bytes()
NAMESPACE = "{urn:schemas-microsoft-com:unattend}"
ACTION = "{http://schemas.microsoft.com/WMIConfig/2002/State}action"
PASSES = ("windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem")
# Microsoft's Unattended Windows Setup Reference: "Valid Configuration Passes" of the settings in use, not of whole components
VALID = {
    "Microsoft-Windows-International-Core-WinPE": {
        "windowsPE": {"SetupUILanguage", "InputLocale", "SystemLocale", "UILanguage", "UserLocale"}
    },
    "Microsoft-Windows-PnpCustomizationsWinPE": {"windowsPE": {"DriverPaths"}},
    "Microsoft-Windows-Setup": {"windowsPE": {"DiskConfiguration", "ImageInstall", "UserData"}},
    "Microsoft-Windows-Deployment": {
        "specialize": {"RunSynchronous", "RunAsynchronous"},
        "auditUser": {"RunSynchronous", "RunAsynchronous", "Reseal"},
        "oobeSystem": {"Reseal"},
    },
    "Microsoft-Windows-PnpSysprep": {"generalize": {"PersistAllDeviceInstalls"}},
    "Microsoft-Windows-Shell-Setup": {"specialize": {"ComputerName", "TimeZone"}, "oobeSystem": {"OOBE", "TimeZone"}},
    "Microsoft-Windows-International-Core": {
        name: {"InputLocale", "SystemLocale", "UILanguage", "UserLocale"} for name in ("specialize", "oobeSystem")
    },
    "Microsoft-Windows-TerminalServices-LocalSessionManager": {"specialize": {"fDenyTSConnections"}},
    "Microsoft-Windows-TerminalServices-RDP-WinStationExtensions": {"specialize": {"SecurityLayer", "UserAuthentication"}},
}
LIST_ITEMS = {
    "PathAndCredentials",
    "Disk",
    "CreatePartition",
    "ModifyPartition",
    "MetaData",
    "RunSynchronousCommand",
    "RunAsynchronousCommand",
}
SECRET = {"Password", "AdministratorPassword", "AutoLogon", "PlainText", "LocalAccounts", "DomainAccounts"}


def answers(name):
    return ET.parse(FOLDER / name).getroot()


def tag(element):
    return element.tag.removeprefix(NAMESPACE)


def found(root, path):
    return root.findall(f".//{'/'.join(NAMESPACE + step for step in path.split('/'))}")


def text(element, path):
    return element.findtext("/".join(NAMESPACE + step for step in path.split("/")))


BOTH = pytest.mark.parametrize("name", ["Autounattend.xml", "clone.xml"])


@BOTH
def test_every_setting_is_in_a_pass_that_knows_it(name):
    root = answers(name)
    assert tag(root) == "unattend"
    passes = [part.get("pass") for part in root]
    assert len(set(passes)) == len(passes) > 0
    assert set(passes) <= set(PASSES)
    for part in root:
        for component in part:
            assert {tag(setting) for setting in component} <= VALID[component.get("name")][part.get("pass")]


@BOTH
def test_every_component_is_named_in_full(name):
    components = found(answers(name), "settings/component")
    assert components
    for component in components:
        rest = {key: value for key, value in component.attrib.items() if key != "name"}
        assert rest == {
            "processorArchitecture": "amd64",
            "publicKeyToken": "31bf3856ad364e35",
            "language": "neutral",
            "versionScope": "nonSxS",
        }


@BOTH
def test_items_of_lists_say_that_they_are_added(name):
    for element in answers(name).iter():
        assert (element.get(ACTION) == "add") == (tag(element) in LIST_ITEMS)


@BOTH
def test_the_answer_file_has_no_password_account_or_key(name):
    root = answers(name)
    assert not SECRET & {tag(element) for element in root.iter()}
    assert not found(root, "ProductKey/Key")
    assert not re.search(r"\b(?:[A-Z0-9]{5}-){4}[A-Z0-9]{5}\b", (FOLDER / name).read_text())


def test_commands_are_numbered_and_not_too_long():
    lists = [*found(answers("Autounattend.xml"), "RunSynchronous"), *found(answers("Autounattend.xml"), "RunAsynchronous")]
    assert len(lists) == 2
    for commands in lists:
        assert [text(command, "Order") for command in commands] == [str(number) for number in range(1, len(commands) + 1)]
        assert all(len(text(command, "Path")) <= 259 for command in commands)


def test_windows_is_installed_on_the_last_partition_which_takes_the_rest():
    root = answers("Autounattend.xml")
    created = {text(part, "Order"): part for part in found(root, "CreatePartition")}
    assert [text(part, "Type") for part in created.values()] == ["EFI", "MSR", "Primary"]
    assert [text(part, "Extend") for part in created.values()] == [None, None, "true"]
    modified = {text(part, "PartitionID"): text(part, "Format") for part in found(root, "ModifyPartition")}
    assert modified == {"1": "FAT32", "3": "NTFS"}
    (target,) = found(root, "InstallTo")
    assert (text(target, "DiskID"), text(target, "PartitionID")) == ("0", max(created))


def test_the_installation_ends_in_audit_mode_where_the_script_runs_unwaited():
    root = answers("Autounattend.xml")
    passes = {part.get("pass"): part for part in root}
    assert text(passes["oobeSystem"], "component/Reseal/Mode") == "Audit"
    assert "setup.ps1" in text(passes["auditUser"], "component/RunAsynchronous/RunAsynchronousCommand/Path")


def test_remote_desktop_asks_who_it_is_before_it_shows_anything():
    root = answers("clone.xml")
    assert [element.text for element in found(root, "fDenyTSConnections")] == ["false"]
    assert [element.text for element in found(root, "UserAuthentication")] == ["1"]
    values = dict(re.findall(r"(\w+) = (\d+)", SCRIPT.decode()))
    assert {
        "fDenyTSConnections": "0",
        "UserAuthentication": "1",
        "SecurityLayer": "2",
        "MinEncryptionLevel": "3",
    }.items() <= values.items()


def has_error(script):
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
    return parser.parse(script).root_node.has_error


def test_powershell_can_read_the_script():
    assert not has_error(SCRIPT)
    assert SCRIPT.isascii()  # PowerShell 5 takes other bytes for the system's own code page


@pytest.mark.parametrize("fault", [b"}", b"'", b"if (", b"$values = @{ a = 1;", b"foreach ($x in ) { }"])
def test_a_mistake_in_the_script_would_be_seen(fault):
    assert has_error(SCRIPT + b"\n" + fault + b"\n")


def test_the_script_names_files_that_are_there():
    beside = set(re.findall(r"\$PSScriptRoot '([^']+)'", SCRIPT.decode()))
    assert beside == {"cloudbase-init.conf", "clone.xml", "stream-hosts.txt"}
    assert all((FOLDER / name).is_file() for name in beside - {"stream-hosts.txt"})


def options():
    """Return cloudbase-init's options: all that it registers itself, with the log's."""
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    for registered in factory.get_options():
        registered(conf).register()
    return conf


def settings(path):
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path)
    return {section: dict(parser[section]) for section in parser}


def faults(path):
    """Return the options of a file that cloudbase-init does not know by that name, or whose value it does not take."""
    conf = options()
    conf(args=[], default_config_files=[str(path)])
    for section, values in settings(path).items():
        for name in values:
            if section != "DEFAULT" or name not in conf:
                yield name
                continue
            try:
                conf[name]
            except cfg.ConfigFileValueError:
                yield name


def test_cloudbase_init_knows_every_option_under_that_name_and_takes_its_value():
    assert len(settings(CONF)["DEFAULT"]) > 5
    assert list(faults(CONF)) == []


@pytest.mark.parametrize("line", ["check_latest_version=perhaps", "config_drive_cdrom=true", "no_such_option=1"])
def test_a_wrong_value_a_former_and_an_unknown_name_would_be_seen(tmp_path, line):
    faulty = tmp_path / "faulty.conf"
    faulty.write_text(f"[DEFAULT]\n{line}\n")
    assert list(faults(faulty)) == [line.partition("=")[0]]


def class_exists(name):
    module, _, wanted = name.rpartition(".")
    spec = importlib.util.find_spec(module)
    tree = ast.parse(Path(spec.origin).read_bytes()) if spec else ast.Module([], [])
    return any(isinstance(node, ast.ClassDef) and node.name == wanted for node in tree.body)


def test_the_plugins_and_services_are_in_cloudbase_init():
    written = settings(CONF)["DEFAULT"]
    assert [name for name in f"{written['plugins']},{written['metadata_services']}".split(",") if not class_exists(name)] == []
    assert not class_exists("cloudbaseinit.plugins.common.mtu.MtuPlugin")


def test_cloudbase_init_takes_no_commands_reads_no_secret_and_sets_no_password():
    written = settings(CONF)["DEFAULT"]
    assert written["inject_user_password"] == "false"
    plugins = {name.rsplit(".", 1)[1] for name in written["plugins"].split(",")}
    assert plugins == {"MTUPlugin", "NetworkConfigPlugin", "ExtendVolumesPlugin"}
