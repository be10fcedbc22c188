"""A moving picture by RTSP, for the system's Python: rtsp_server.py PORT WIDTH HEIGHT [USER PASSWORD]."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 (after the versions)

Gst.init(None)
port, width, height, *login = sys.argv[1:]
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( videotestsrc is-live=true pattern=ball ! video/x-raw,width={width},height={height},framerate=30/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )"
)
factory.set_shared(False)  # shared, GStreamer 1.22's server aborts now and then when its clients went while it stood
server = GstRtspServer.RTSPServer(service=port)
if login:
    role = Gst.Structure.new_empty("viewer")
    for permission in (GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT):
        role.set_value(permission, True)
    factory.add_role_from_structure(role)
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, role.get_name())
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
    server.set_auth(auth)
server.get_mount_points().add_factory("/test", factory)
server.attach(None)
print("ready", flush=True)  # noqa: T201
GLib.MainLoop().run()
