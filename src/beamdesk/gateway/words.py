"""Everything that the gateway says to a person, in English and Chinese. What happened, then what to do next."""
# ruff: noqa: RUF001 - Chinese punctuation is full width

from __future__ import annotations

from beamdesk.domain.desktop import Desired, Desktop, Phase, Reason
from beamdesk.domain.text import Text
from beamdesk.gateway.lookup import Look, State

PAGE: dict[str, Text] = {
    "connecting": Text("Connecting to your desktop…", "正在连接桌面…"),
    "connecting_hint": Text("The first picture appears in a moment.", "马上显示画面。"),
    "reconnecting": Text("Reconnecting…", "正在重新连接…"),
    "reconnecting_hint": Text(
        "The connection was interrupted. Your programs keep running on the desktop.", "连接中断。桌面上的程序仍在运行。"
    ),
    "taken_over": Text("This desktop is open in another tab", "此桌面已在另一个标签页中打开"),
    "taken_over_hint": Text(
        "Only one tab shows it at a time. Nothing was lost.", "同一时间只能在一个标签页中显示。没有丢失任何内容。"
    ),
    "use_here": Text("Use it here", "在此处使用"),
    "no_decoder": Text("This browser cannot show the desktop", "此浏览器无法显示桌面"),
    "no_decoder_hint": Text(
        "It has no video decoder for web pages (WebCodecs). Use a current Chrome, Edge, Firefox or Safari.",
        "它没有网页视频解码器（WebCodecs）。请使用新版 Chrome、Edge、Firefox 或 Safari。",
    ),
    "back": Text("Back to the portal", "返回门户"),
    "again": Text("Try again", "重试"),
    "screen": Text(
        "Screen of the desktop. Keyboard and mouse go there. Ctrl+Shift+M opens the toolbar.",
        "桌面屏幕。键盘和鼠标操作将发送到桌面。按 Ctrl+Shift+M 打开工具栏。",
    ),
    "toolbar": Text("Desktop toolbar", "桌面工具栏"),
    "hide_bar": Text("Hide toolbar", "隐藏工具栏"),
    "show_bar": Text("Show toolbar", "显示工具栏"),
    "clipboard": Text("Clipboard", "剪贴板"),
    "clipboard_help": Text(
        "Copy and paste between this computer and the desktop. It works by itself where your browser allows it; "
        "otherwise paste here and press Send, or copy what is shown.",
        "在本机与桌面之间复制和粘贴。浏览器允许时会自动同步；否则请在此处粘贴并按“发送”，或复制下面显示的内容。",
    ),
    "clipboard_text": Text("Clipboard text", "剪贴板文本"),
    "clipboard_send": Text("Send to desktop", "发送到桌面"),
    "clipboard_copy": Text("Copy to this computer", "复制到本机"),
    "clipboard_sent": Text("Sent. Paste it on the desktop.", "已发送。请在桌面上粘贴。"),
    "clipboard_copied": Text("Copied to this computer.", "已复制到本机。"),
    "clipboard_manual": Text("Select the text and press Ctrl+C.", "请选中文本并按 Ctrl+C。"),
    "clipboard_new": Text("New text from the desktop.", "收到桌面的新文本。"),
    "close": Text("Close", "关闭"),
    "sound_on": Text("Turn sound on", "打开声音"),
    "sound_off": Text("Turn sound off", "关闭声音"),
    "keyboard": Text("On-screen keyboard", "屏幕键盘"),
    "full_screen": Text("Full screen", "全屏"),
    "leave_full_screen": Text("Leave full screen", "退出全屏"),
    "disconnect": Text("Disconnect", "断开连接"),
    "extend": Text("Extend", "延长"),
    "extended": Text("Extended. {left} left.", "已延长，剩余 {left}。"),
    "extend_failed": Text("The time was not extended. Try again.", "未能延长时间，请重试。"),
    "time_left": Text("Time left", "剩余时间"),
    "lease_warning": Text(
        "This desktop stops in {left}. Your files are kept; unsaved work in programs is lost.",
        "此桌面将在 {left}后停止。文件会保留，程序中未保存的内容会丢失。",
    ),
    "hours": Text("{h} h {m} min", "{h} 小时 {m} 分"),
    "days": Text("{d} d {h} h", "{d} 天 {h} 小时"),
    "minutes": Text("{m} min", "{m} 分钟"),
    "latency": Text("Round trip to the desktop", "到桌面的往返时间"),
    "frame_rate": Text("Pictures per second", "每秒画面数"),
    "viewer": Text("You are watching. Only the owner can use mouse and keyboard.", "您正在观看。只有所有者可以使用鼠标和键盘。"),
    "viewer_short": Text("View only", "仅观看"),
}

MESSAGES: dict[str, tuple[Text, Text]] = {
    "ticket_refused": (
        Text("This link cannot be used", "此链接无法使用"),
        Text(
            "It was used already, is older than a few seconds, or belongs to another desktop. Go back and press Connect again.",
            "它已被使用、已过期（有效期仅数秒），或属于另一个桌面。请返回并重新点击“连接”。",
        ),
    ),
    "ticket_in_address": (
        Text("This link cannot be used", "此链接无法使用"),
        Text(
            "For your safety a desktop is not opened from an address. Go back and press Connect.",
            "为了安全，不能通过网址直接打开桌面。请返回并点击“连接”。",
        ),
    ),
    "wrong_origin": (
        Text("This did not come from the portal", "此请求不是来自门户"),
        Text("Another web site tried to open this desktop. Nothing was opened.", "另一个网站试图打开此桌面。未执行任何操作。"),
    ),
    "no_session": (
        Text("Open this desktop from the portal", "请从门户打开此桌面"),
        Text("There is no open session in this browser, or it has ended.", "此浏览器中没有打开的会话，或会话已结束。"),
    ),
    "store_unavailable": (
        Text("Beamdesk cannot be reached right now", "暂时无法连接 Beamdesk"),
        Text("Desktops that are open stay open. Try again in a minute.", "已打开的桌面不受影响。请稍后重试。"),
    ),
    "bad_request": (
        Text("This cannot be opened", "无法打开"),
        Text("The browser sent something that this server does not accept.", "浏览器发送了服务器不接受的请求。"),
    ),
    "not_found": (Text("There is nothing here", "此处没有内容"), Text("Go back to the portal.", "请返回门户。")),
    "consent": (
        Text("Continue as {name}?", "以 {name} 的身份继续？"),
        Text(
            "This opens the desktop “{desktop}” with the account of {name}. Continue only if you came here on purpose.",
            "将以 {name} 的账户打开桌面“{desktop}”。请仅在您主动打开时继续。",
        ),
    ),
}
CONSENT_BUTTON = Text("Continue as {name}", "以 {name} 的身份继续")

_STOPPED_BECAUSE: dict[Reason, Text] = {
    Reason.LEASE_ENDED: Text(
        "Its time was over. Your files are kept; start it again in the portal.", "时间已到。文件已保留，可在门户中重新启动。"
    ),
    Reason.IDLE: Text(
        "Nobody had used it and nothing was computing. Your files are kept; start it again in the portal.",
        "长时间无人使用且没有计算任务。文件已保留，可在门户中重新启动。",
    ),
    Reason.USER: Text("It was stopped in the portal. Your files are kept.", "已在门户中停止。文件已保留。"),
    Reason.OPERATOR: Text(
        "An operator stopped it. Your files are kept. Ask the help desk why.", "运维人员已将其停止。文件已保留，请咨询服务台。"
    ),
}
_STOPPED = Text(
    "It is not running. Your files are kept; look in the portal for the reason.", "它未在运行。文件已保留，请在门户中查看原因。"
)
_STOPPED_TITLE = Text("Your desktop was stopped", "您的桌面已停止")
_DELETED = (Text("This desktop was deleted", "此桌面已删除"), Text("It does not exist any more.", "它已不存在。"))
_FAILED = (
    Text("Your desktop has failed", "您的桌面出现故障"),
    Text("Your files are kept. Look in the portal for what happened.", "文件已保留。请在门户中查看原因。"),
)
_WAITING = (
    Text("Your desktop is being repaired", "正在修复您的桌面"),
    Text("This page connects by itself as soon as it is back.", "恢复后本页面会自动连接。"),
)
_ENDED_TITLE = Text("Your session has ended", "您的会话已结束")
_ENDED_BECAUSE: dict[str, Text] = {
    "disconnected": Text("You disconnected. The desktop keeps running.", "您已断开连接。桌面仍在运行。"),
    "signed_out": Text("You signed out of the portal. The desktop keeps running.", "您已退出门户。桌面仍在运行。"),
    "replaced": Text("The desktop was opened in another tab.", "桌面已在另一个标签页中打开。"),
}
_ENDED = Text("You may not use this desktop any more, or the session was too old.", "您不再有权使用此桌面，或会话已过期。")


def why(look: Look, language: str) -> tuple[str, str]:
    """Return title and text for a session that shows no desktop."""
    title, text = _why(look)
    return title.get(language), text.get(language)


def _why(look: Look) -> tuple[Text, Text]:
    desktop = look.desktop
    if look.state is State.NONE:
        return MESSAGES["no_session"]
    if desktop is None or desktop.desired is Desired.DELETED:
        return _DELETED
    if look.state is State.WAITING:
        return _WAITING
    if look.state is State.STOPPED:
        return _stopped(desktop)
    reason = look.session.end_reason if look.session else ""
    return _ENDED_TITLE, _ENDED_BECAUSE.get(reason, _ENDED)


def _stopped(desktop: Desktop) -> tuple[Text, Text]:
    if desktop.phase is Phase.FAILED:
        return _FAILED
    for reason in (desktop.desired_reason, desktop.reason):
        if desktop.desired is Desired.STOPPED and reason in _STOPPED_BECAUSE:
            return _STOPPED_TITLE, _STOPPED_BECAUSE[reason]
    return _STOPPED_TITLE, _STOPPED


def page_words(language: str) -> dict[str, str]:
    """Return the connect page's words in one language."""
    return {key: text.get(language) for key, text in PAGE.items()}


def preferred_language(accept_language: str) -> str:
    """Return ``zh`` or ``en`` by a browser's Accept-Language, for pages of which no person is known."""
    first = accept_language.split(",", maxsplit=1)[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"
