#!/usr/bin/python3
"""A GStreamer peer (webrtcbin) that publishes by WHIP or views by WHEP, and tells in lines of JSON what it sees.

    peer.py publish URL TOKEN
    peer.py view URL TOKEN [--videos N]

Needs Debian's python3-gi, gir1.2-gst-plugins-bad-1.0, gstreamer1.0-nice and gstreamer1.0-plugins-{base,good,bad}.
It ends, and deletes its session, when its standard input ends: so it never outlives who started it.

Lines: {"connected": true}; then, when viewing, at most ten a second: {"video": [frames decoded, one a slot], "audio": buffers}.
"""

import argparse
import json
import sys
import threading
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402  (the versions must be asked for first)

VIDEO = "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000"
AUDIO = "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,encoding-params=(string)2"
PUBLISH = f"""
    webrtcbin name=peer bundle-policy=max-bundle
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=180,framerate=15/1
        ! vp8enc deadline=1 cpu-used=8 target-bitrate=300000 ! rtpvp8pay pt=96 picture-id-mode=15-bit ! {VIDEO} ! peer.
    audiotestsrc is-live=true wave=ticks ! audioconvert ! opusenc ! rtpopuspay pt=97 ! {AUDIO} ! peer.
"""
VIEW = "webrtcbin name=peer bundle-policy=max-bundle"
DECODERS = {
    "video": "rtpvp8depay ! vp8dec ! fakesink name=sink sync=false signal-handoffs=true",
    "audio": "rtpopusdepay ! opusdec ! fakesink name=sink sync=false signal-handoffs=true",
}


def tell(**what):
    print(json.dumps(what), flush=True)


class Peer:
    def __init__(self, options):
        self.options = options
        self.session = None
        self.video = [0] * options.videos
        self.audio = 0
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch(PUBLISH if options.role == "publish" else VIEW)
        if options.role == "view":
            # An empty pipeline made of one element is that element.
            peer, self.pipeline = self.pipeline, Gst.Pipeline()
            self.pipeline.add(peer)
            self.webrtc = peer
        else:
            self.webrtc = self.pipeline.get_by_name("peer")
        self.webrtc.connect("notify::ice-gathering-state", self.on_gathering)
        self.webrtc.connect("notify::connection-state", self.on_connection)
        self.webrtc.connect("pad-added", self.on_pad)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)

    def run(self):
        self.pipeline.set_state(Gst.State.READY)
        if self.options.role == "view":
            direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
            for caps in [VIDEO] * self.options.videos + [AUDIO]:
                self.webrtc.emit("add-transceiver", direction, Gst.Caps.from_string(caps))
        self.pipeline.set_state(Gst.State.PLAYING)
        # Caps reach the peer with the first buffers; then it can offer.
        GLib.timeout_add(20, self.offer_when_ready)
        threading.Thread(target=self.watch_input, daemon=True).start()
        self.loop.run()
        if self.session:
            # A session that the relay has ended already is an error: the peer was to live until now.
            self.request("DELETE", self.session, None)
        self.pipeline.set_state(Gst.State.NULL)

    def watch_input(self):
        sys.stdin.read()
        GLib.idle_add(self.loop.quit)

    def offer_when_ready(self):
        if self.options.role == "publish":
            pads = self.webrtc.sinkpads
            if len(pads) < 2 or not all(pad.get_current_caps() for pad in pads):
                return True
            for at in range(2):
                transceiver = self.webrtc.emit("get-transceiver", at)
                transceiver.set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
        promise = Gst.Promise.new_with_change_func(self.on_offer)
        self.webrtc.emit("create-offer", None, promise)
        return False

    def on_offer(self, promise):
        # The description belongs to the reply, which must live as long.
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        self.webrtc.emit("set-local-description", offer, Gst.Promise.new())

    def on_gathering(self, *_):
        done = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if self.webrtc.get_property("ice-gathering-state") == done and self.session is None:
            self.session = ""
            GLib.idle_add(self.post)

    def post(self):
        offer = self.webrtc.get_property("local-description").sdp.as_text()
        response = self.request("POST", self.options.url, offer)
        self.session = urllib.parse.urljoin(self.options.url, response.headers["Location"])
        _, answer = GstSdp.SDPMessage.new_from_text(response.read().decode())
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, answer)
        self.webrtc.emit("set-remote-description", answer, Gst.Promise.new())
        return False

    def request(self, method, url, body):
        headers = {"Authorization": f"Bearer {self.options.token}", "Content-Type": "application/sdp"}
        request = urllib.request.Request(url, body and body.encode(), headers, method=method)
        return urllib.request.urlopen(request, timeout=10)

    def on_connection(self, *_):
        state = self.webrtc.get_property("connection-state")
        if state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            tell(connected=True)
            if self.options.role == "view":
                GLib.timeout_add(100, self.tell_frames)
        elif state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            tell(error="the connection failed")
            GLib.idle_add(self.loop.quit)

    def on_pad(self, _, pad):
        if pad.direction != Gst.PadDirection.SRC:
            return
        caps = pad.get_current_caps().get_structure(0)
        kind = caps.get_string("media")
        slot = pad.get_property("transceiver").get_property("mlineindex")
        decoder = Gst.parse_bin_from_description(DECODERS[kind], True)
        decoder.get_by_name("sink").connect("handoff", self.on_decoded, kind, slot)
        self.pipeline.add(decoder)
        pad.link(decoder.get_static_pad("sink"))
        decoder.sync_state_with_parent()

    def on_decoded(self, _sink, _buffer, _pad, kind, slot):
        if kind == "video":
            self.video[slot] += 1
        else:
            self.audio += 1

    def tell_frames(self):
        tell(video=self.video, audio=self.audio)
        return True

    def on_error(self, _, message):
        error, details = message.parse_error()
        tell(error=f"{error.message}: {details}")
        self.loop.quit()


def main():
    parser = argparse.ArgumentParser(description="A GStreamer peer for WHIP and WHEP.")
    parser.add_argument("role", choices=["publish", "view"])
    parser.add_argument("url", help="http://HOST:PORT/whip/MEETING or …/whep/MEETING")
    parser.add_argument("token")
    parser.add_argument("--videos", type=int, default=1, help="video slots when viewing")
    Gst.init(None)
    Peer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
