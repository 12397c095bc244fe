from __future__ import annotations

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - after the versions are chosen

PICTURE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=120,framerate={fps}/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 pt=96 )"
)

FILE = "( filesrc location={path} ! qtdemux ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"


def require_password(server, factory, user: str, password: str) -> None:
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def main() -> None:
    parser = argparse.ArgumentParser(description="A camera for tests: serves a test pattern over RTSP.")
    parser.add_argument("--port", default="0", help="0 takes a free one; the port is printed")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--path", default="/live")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument(
        "--launch", help="pipeline to serve instead; its payloaders are called pay0, pay1, ..."
    )
    parser.add_argument("--file", help="MP4 file with H.264 to serve instead of a pattern")
    parser.add_argument("--unshared", action="store_true", help="play it anew for each client")
    parser.add_argument("--udp", action="store_true", help="send packets over UDP, and refuse TCP")
    parser.add_argument("--user")
    parser.add_argument("--password")
    arguments = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(arguments.host)
    server.set_service(arguments.port)
    factory = GstRtspServer.RTSPMediaFactory()
    picture = PICTURE.format(fps=arguments.fps)
    served = FILE.format(path=arguments.file) if arguments.file else picture
    factory.set_launch(f"( {arguments.launch} )" if arguments.launch else served)
    factory.set_shared(not arguments.unshared)
    if arguments.udp:
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    if arguments.user is not None:
        require_password(server, factory, arguments.user, arguments.password)
    server.get_mount_points().add_factory(arguments.path, factory)
    if not server.attach(None):
        raise SystemExit(f"port {arguments.port} is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
