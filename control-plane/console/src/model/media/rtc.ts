// One leg of this browser at a relay: one RTCPeerConnection, one POST with an offer, one answer, nothing negotiated
// after that. Own microphone, camera and screen come first (sendonly), then the slots (recvonly): the stage, content,
// the wall, and three for sound. A slot's name at the relay is the `mid` of its m-line. It does not decide when to come back: the
// keeper does.

import type { JoinTicket } from "../../gen/muster/command/v1/command_pb";

export const AUDIO_SLOTS = 3;

export interface SlotTrack {
  name: string;
  mid: string;
  stream: MediaStream;
}

export interface Received {
  mid: string;
  frames: number;
  packets: number;
  lost: number;
  bytes: number;
  freezes: number;
}

export type LegRefusal = { code: string; message: string };

export interface LegConnection {
  secret: string;
  relayUrl: string;
  slots: SlotTrack[];
  /** Called once, when the connection has failed or has been gone for two seconds. */
  onDown(run: () => void): void;
  received(): Promise<Received[]>;
  /** `gone`: the relay has dropped the leg already, so no goodbye is said. */
  close(gone?: boolean): void;
}

/** What this browser sends: its camera and microphone, and what is shared of its screen. */
export interface Own {
  stream?: MediaStream | undefined;
  content?: MediaStream | undefined;
}

export type OpenLeg = (
  ticket: JoinTicket,
  own: Own,
  wallSlots: number,
) => Promise<{ kind: "open"; leg: LegConnection } | { kind: "refused"; refusal: LegRefusal } | { kind: "unreachable" }>;

const DISCONNECTED_MS = 2_000;
/** A relay that takes longer for its answer is as good as away. */
const ANSWER_MS = 8_000;

export const openRtcLeg: OpenLeg = async (ticket, own, wallSlots) => {
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle", rtcpMuxPolicy: "require" });
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), ANSWER_MS);
  try {
    const result = await negotiate(peer, ticket, own, wallSlots, late.signal);
    if (result.kind !== "open") peer.close();
    return result;
  } catch {
    // The network, the timer, or an answer that the browser cannot use: nothing stays behind, the keeper tries again.
    peer.close();
    return { kind: "unreachable" };
  } finally {
    clearTimeout(timer);
  }
};

async function negotiate(
  peer: RTCPeerConnection,
  ticket: JoinTicket,
  own: Own,
  wallSlots: number,
  signal: AbortSignal,
): ReturnType<OpenLeg> {
  publish(peer, own.stream);
  const content = share(peer, own.content);
  const slots = addSlots(peer, wallSlots);
  await peer.setLocalDescription(await peer.createOffer());
  const response = await fetch(new URL("/v1/legs", ticket.relayUrl), {
    method: "POST",
    headers: { authorization: `Bearer ${ticket.token}`, "content-type": "application/sdp" },
    body: withSlides(peer.localDescription!.sdp, content?.mid ?? undefined),
    signal,
  });
  if (response.status !== 201) return { kind: "refused", refusal: await refusalOf(response) };
  await peer.setRemoteDescription({ type: "answer", sdp: await response.text() });
  const location = new URL(response.headers.get("location") ?? "/v1/legs/", ticket.relayUrl);
  return { kind: "open", leg: connection(peer, slots, ticket.relayUrl, location, response.headers.get("muster-leg-secret") ?? "") };
}

/** Layers of the own camera, smallest first; one without a name where simulcast is of no use. */
export function layersFor(height: number): RTCRtpEncodingParameters[] {
  const full = { rid: "f", maxBitrate: 1_800_000 };
  const half = { rid: "h", maxBitrate: 500_000, scaleResolutionDownBy: 2 };
  if (height >= 720) return [{ rid: "q", maxBitrate: 150_000, scaleResolutionDownBy: 4 }, half, full];
  if (height >= 360) return [half, { ...full, maxBitrate: 900_000 }];
  return [{ maxBitrate: 500_000 }];
}

function publish(peer: RTCPeerConnection, own: MediaStream | undefined): void {
  const [mic] = own?.getAudioTracks() ?? [];
  const [camera] = own?.getVideoTracks() ?? [];
  const streams = own ? [own] : [];
  if (mic) peer.addTransceiver(mic, { direction: "sendonly", streams });
  if (!camera) return;
  const sendEncodings = layersFor(camera.getSettings().height ?? 0);
  const transceiver = peer.addTransceiver(camera, { direction: "sendonly", streams, sendEncodings });
  preferVp8(transceiver, RTCRtpSender.getCapabilities("video"));
}

/** The shared screen, in one size: text on it must stay readable. */
function share(peer: RTCPeerConnection, content: MediaStream | undefined): RTCRtpTransceiver | undefined {
  const [screen] = content?.getVideoTracks() ?? [];
  if (!screen || !content) return undefined;
  const transceiver = peer.addTransceiver(screen, { direction: "sendonly", streams: [content], sendEncodings: [{ maxBitrate: 1_500_000 }] });
  preferVp8(transceiver, RTCRtpSender.getCapabilities("video"));
  return transceiver;
}

/** Says of the shared screen's m-line that it is content (RFC 4796), also where there is no camera before it. */
export function withSlides(sdp: string, mid: string | undefined): string {
  return mid === undefined ? sdp : sdp.replace(`\r\na=mid:${mid}\r\n`, `\r\na=mid:${mid}\r\na=content:slides\r\n`);
}

function preferVp8(transceiver: RTCRtpTransceiver, capabilities: RTCRtpCapabilities | null): void {
  if (!capabilities || !transceiver.setCodecPreferences) return;
  const rank = (mime: string): number => (mime.toLowerCase() === "video/vp8" ? 0 : 1);
  transceiver.setCodecPreferences([...capabilities.codecs].sort((a, b) => rank(a.mimeType) - rank(b.mimeType)));
}

const RELAYED = new Set(["video/vp8", "video/h264", "video/rtx"]);

/** Fifty slots with every codec of the browser would make an offer of 160 kB: only those that a relay forwards. */
function offerOnly(transceiver: RTCRtpTransceiver, capabilities: RTCRtpCapabilities | null): void {
  const codecs = capabilities?.codecs.filter(({ mimeType }) => RELAYED.has(mimeType.toLowerCase())) ?? [];
  if (codecs.length > 0 && transceiver.setCodecPreferences) transceiver.setCodecPreferences(codecs);
}

function addSlots(peer: RTCPeerConnection, wallSlots: number): { name: string; transceiver: RTCRtpTransceiver }[] {
  const capabilities = RTCRtpReceiver.getCapabilities("video");
  const video = (name: string) => {
    const transceiver = peer.addTransceiver("video", { direction: "recvonly" });
    offerOnly(transceiver, capabilities);
    return { name, transceiver };
  };
  const slots = [video("stage"), video("content")];
  for (let at = 0; at < wallSlots; at += 1) slots.push(video(`wall${at}`));
  for (let at = 0; at < AUDIO_SLOTS; at += 1) {
    slots.push({ name: `audio${at}`, transceiver: peer.addTransceiver("audio", { direction: "recvonly" }) });
  }
  return slots;
}

async function refusalOf(response: Response): Promise<LegRefusal> {
  try {
    const body = (await response.json()) as { code?: string; detail?: string };
    return { code: String(body.code ?? response.status), message: String(body.detail ?? response.statusText) };
  } catch {
    return { code: String(response.status), message: response.statusText };
  }
}

function connection(
  peer: RTCPeerConnection,
  slots: { name: string; transceiver: RTCRtpTransceiver }[],
  relayUrl: string,
  location: URL,
  secret: string,
): LegConnection {
  let closed = false;
  return {
    secret,
    relayUrl,
    slots: slots.map(({ name, transceiver }) => ({
      name,
      mid: transceiver.mid ?? "",
      stream: new MediaStream([transceiver.receiver.track]),
    })),
    onDown(run) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      peer.addEventListener("connectionstatechange", () => {
        clearTimeout(timer);
        if (closed) return;
        if (peer.connectionState === "failed" || peer.connectionState === "closed") run();
        else if (peer.connectionState === "disconnected") timer = setTimeout(() => closed || run(), DISCONNECTED_MS);
      });
    },
    received: async () => inbound(await peer.getStats()),
    close(gone = false) {
      if (closed) return;
      closed = true;
      peer.close();
      if (gone) return;
      // keepalive: the goodbye must outlive the page.
      void fetch(location, { method: "DELETE", keepalive: true, headers: { authorization: `Bearer ${secret}` } }).catch(
        () => undefined,
      );
    },
  };
}

function inbound(report: RTCStatsReport): Received[] {
  const list: Received[] = [];
  report.forEach((entry: Record<string, unknown>) => {
    if (entry.type !== "inbound-rtp" || entry.kind !== "video" || typeof entry.mid !== "string") return;
    const number = (key: string): number => (typeof entry[key] === "number" ? (entry[key] as number) : 0);
    list.push({
      mid: entry.mid,
      frames: number("framesDecoded"),
      packets: number("packetsReceived"),
      lost: number("packetsLost"),
      bytes: number("bytesReceived"),
      freezes: number("freezeCount"),
    });
  });
  return list;
}
