"""A network camera for tests: GStreamer's RTSP server with two H.264 streams, /main and /sub, and sound in /main.

camera.py PORT [--user NAME --password WORD] [--sound alaw|ulaw|aac|none]
Prints "ready", and ends when its input does.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

SOUNDS = {
    "alaw": "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay1 pt=8",
    "ulaw": "audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 pt=0",
    "aac": "audio/x-raw,rate=44100,channels=2 ! voaacenc ! aacparse ! rtpmp4gpay name=pay1 pt=97",
}


def picture(width, height, kbps):
    # A key frame each four seconds, High profile.
    return (
        f"videotestsrc is-live=true pattern=ball ! video/x-raw,width={width},height={height},framerate=25/1 ! "
        f"x264enc speed-preset=superfast tune=zerolatency key-int-max=100 bitrate={kbps} dct8x8=true ! "
        "video/x-h264,profile=high ! rtph264pay name=pay0 pt=96 config-interval=-1"
    )


def main():
    options = argparse.ArgumentParser()
    options.add_argument("port")
    options.add_argument("--user")
    options.add_argument("--password")
    options.add_argument("--sound", default="alaw")
    options = options.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    streams = {"/main": picture(640, 360, 800), "/sub": picture(320, 180, 200)}
    if options.sound != "none":
        streams["/main"] += f" audiotestsrc is-live=true freq=440 ! audioconvert ! {SOUNDS[options.sound]}"
    if options.user:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_digest(options.user, options.password, token)
        server.set_auth(auth)
    for path, pipeline in streams.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {pipeline} )")
        factory.set_shared(True)
        if options.user:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_permission_for_role("viewer", "media.factory.access", True)
            permissions.add_permission_for_role("viewer", "media.factory.construct", True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        sys.exit(f"port {options.port} is taken")
    loop = GLib.MainLoop()
    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IOCondition.HUP | GLib.IOCondition.IN, lambda *_: loop.quit())
    print("ready", flush=True)
    loop.run()


main()
