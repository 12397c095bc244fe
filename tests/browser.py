"""Firefox without a window, driven by its own Marionette protocol: no driver program, no package."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

_START_S: Final = 60.0
_ANSWER_S: Final = 60.0
_HEIGHT_PX: Final = 900
_PREFERENCES: Final = {
    "marionette.port": 0,  # a free one, which it writes into the profile
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.proxy.type": 1,  # nothing is reached, whatever a page or Firefox itself asks for
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}


def find_firefox() -> str | None:
    """The program, where there is one."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Browser:
    """Shows one page at a time.

    Args:
        program: Of Firefox.
        profile: An empty folder.
    """

    def __init__(self, program: str, profile: Path) -> None:
        lines = [
            f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _PREFERENCES.items()
        ]
        (profile / "user.js").write_text("\n".join(lines))
        options = ["--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
        with (profile / "firefox.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, *options, "--profile", str(profile), "about:blank"], stdout=log, stderr=log
            )
        self._number = 0
        try:
            self._connection = self._connect(profile)
            self._stream = self._connection.makefile("rb")
            self._message()
            self._ask("WebDriver:NewSession")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._connection.close()
        self.close()

    def close(self) -> None:
        """End the program."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)

    def open(self, page: Path, *, width_px: int = 1200, scheme: str = "light") -> None:
        """Show a page, and forget what was complained of before.

        Args:
            page: HTML file.
            width_px: Of the room that it gets; a phone's is less than a window can have.
            scheme: The colours that are asked for, ``light`` or ``dark``.
        """
        self._ask("WebDriver:SetWindowRect", width=max(width_px, 500) + 50, height=_HEIGHT_PX + 150)
        self._inside(
            "Services.console.reset(); const style = gBrowser.selectedBrowser.style;"
            f"for (const end of ['min', 'max']) {{ style[end + 'Width'] = '{width_px}px';"
            f"style[end + 'Height'] = '{_HEIGHT_PX}px'; }}"
        )
        dark = scheme == "dark"
        self.set("layout.css.prefers-color-scheme.content-override", 0 if dark else 1)
        self._ask("WebDriver:Navigate", url=page.resolve().as_uri())
        # Sizes and settings reach the page by ways of their own, which may be the longer ones.
        self._wait_for(
            "return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]", [width_px, dark]
        )

    def run(self, script: str, *args: object) -> Any:
        """What a script returns that runs in the page; its arguments are ``arguments``."""
        return self._ask("WebDriver:ExecuteScript", script=script, args=args)["value"]

    def type(self, selector: str, text: str) -> None:
        """Type into the first element that a selector of CSS finds."""
        self._ask("WebDriver:ElementSendKeys", id=self._element(selector), text=text)

    def click(self, selector: str) -> None:
        """Click on the first element that a selector of CSS finds."""
        self._ask("WebDriver:ElementClick", id=self._element(selector))

    def complaints(self) -> list[str]:
        """What the console holds of the page: its errors and warnings, and what its policy refused."""
        found: list[str] = self._inside(
            "return Services.console.getMessageArray()"
            ".filter(each => each instanceof Ci.nsIScriptError && /^(file|data):/.test(each.sourceName))"
            ".map(each => each.errorMessage)"
        )
        return found

    def set(self, name: str, value: int | bool) -> None:
        """Change a setting of ``about:config``, before a page is opened."""
        kind = "Bool" if isinstance(value, bool) else "Int"
        self._inside(f"Services.prefs.set{kind}Pref({json.dumps(name)}, {json.dumps(value)})")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page, as PNG."""
        path.write_bytes(base64.b64decode(self._ask("WebDriver:TakeScreenshot", full=True)["value"]))

    def _wait_for(self, script: str, expected: object) -> None:
        deadline = time.monotonic() + _ANSWER_S
        while (found := self.run(script)) != expected:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script}: expected {expected} after {_ANSWER_S} s, got {found}")
            time.sleep(0.02)

    def _element(self, selector: str) -> str:
        found = self._ask("WebDriver:FindElement", using="css selector", value=selector)["value"]
        (reference,) = found.values()
        return str(reference)

    def _inside(self, script: str) -> Any:
        """What a script returns that runs in the browser itself."""
        self._ask("Marionette:SetContext", value="chrome")
        try:
            return self.run(script)
        finally:
            self._ask("Marionette:SetContext", value="content")

    def _connect(self, profile: Path) -> socket.socket:
        port, deadline = profile / "MarionetteActivePort", time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if port.is_file() and (text := port.read_text().strip()):
                return socket.create_connection(("127.0.0.1", int(text)), timeout=_ANSWER_S)
            time.sleep(0.02)
        raise TimeoutError(f"Firefox does not answer: {(profile / 'firefox.log').read_text()[-2000:]}")

    def _message(self) -> Any:
        """The next message: its length, a colon, and JSON."""
        length = b""
        while not length.endswith(b":"):
            if not (byte := self._stream.read(1)):
                raise ConnectionError("Firefox hung up")
            length += byte
        return json.loads(self._stream.read(int(length[:-1])))

    def _ask(self, command: str, **values: object) -> Any:
        self._number += 1
        asked = json.dumps([0, self._number, command, values]).encode()
        self._connection.sendall(b"%d:%s" % (len(asked), asked))
        _, _, error, result = self._message()
        if error is not None:
            raise RuntimeError(f"{command}: {error['error']}: {error['message']}")
        return result
