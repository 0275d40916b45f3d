"""A headless Chromium, by the DevTools protocol over pipes: no driver and no library are needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--remote-debugging-pipe",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # there is no net
    "--window-size=1400,1150",
)


class Tab:
    """The one page of a browser.

    Attributes:
        requests: addresses that the page has asked for.
        errors: what it wrote to the console as an error, and exceptions.
    """

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._count = write, read, b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and wait for what it gives."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true, or something that is there."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}\n{self.errors}\n{self.text()}"
            time.sleep(0.05)

    def text(self) -> str:
        """All that can be read on the page."""
        return self.evaluate("document.body.innerText")

    def upload(self, selector: str, path: Path) -> None:
        """Choose a file for an input of the page."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def screenshot(self, path: Path) -> None:
        """The page as a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], 60)[0], "Chromium does not answer"
            more = os.read(self._read, 2**20)
            assert more, "Chromium has ended"
            self._rest += more
        raw, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return message


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Tab]:
    """Start a browser with a profile of its own, which knows no host but this one."""
    assert CHROMIUM
    # The browser reads commands from descriptor 3 and writes to 4.
    to_browser, from_browser = os.pipe(), os.pipe()
    given = [os.dup2(os.dup(end), at) for end, at in ((to_browser[0], 203), (from_browser[1], 204))]
    words = ["bash", "-c", 'exec "$0" "$@" 3<&203 4>&204 203<&- 204>&-', CHROMIUM, *_FLAGS]
    with open(profile.with_name("chromium.log"), "wb") as log:
        process = subprocess.Popen([*words, f"--user-data-dir={profile}"], pass_fds=given, stderr=log)
    try:
        yield Tab(to_browser[1], from_browser[0])
    finally:
        process.terminate()
        process.wait(20)
        for end in (*to_browser, *from_browser, *given):
            os.close(end)
