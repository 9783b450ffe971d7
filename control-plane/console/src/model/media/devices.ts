// Camera and microphone of this machine: asks for both, takes what there is, and says in one word why the rest is
// missing. It never throws. Switching one off keeps its track (black or silent), so that nothing is negotiated anew.

export type DeviceState = "unasked" | "asking" | "on" | "off" | "missing" | "denied" | "busy" | "insecure";

export interface Capture {
  stream: MediaStream | undefined;
  camera: DeviceState;
  mic: DeviceState;
}

export const NO_CAPTURE: Capture = { stream: undefined, camera: "unasked", mic: "unasked" };

const VIDEO: MediaTrackConstraints = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 25, max: 30 } };
const AUDIO: MediaTrackConstraints = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

export function reasonOf(error: unknown): DeviceState {
  switch (error instanceof Error ? error.name : "") {
    case "NotAllowedError":
    case "SecurityError":
      return "denied";
    case "NotReadableError":
    case "AbortError":
      return "busy";
    default:
      return "missing";
  }
}

export async function capture(devices: MediaDevices | undefined = navigator.mediaDevices): Promise<Capture> {
  if (!devices?.getUserMedia) return { stream: undefined, camera: "insecure", mic: "insecure" };
  try {
    const stream = await devices.getUserMedia({ audio: AUDIO, video: VIDEO });
    return { stream, camera: "on", mic: "on" };
  } catch (error) {
    // A refusal by the person is for both; anything else may be one device's fault.
    if (reasonOf(error) === "denied") return { stream: undefined, camera: "denied", mic: "denied" };
  }
  const [video, audio] = await Promise.all([
    one(devices, { video: VIDEO }),
    one(devices, { audio: AUDIO }),
  ]);
  const tracks = [...(video.stream?.getTracks() ?? []), ...(audio.stream?.getTracks() ?? [])];
  return { stream: tracks.length ? new MediaStream(tracks) : undefined, camera: video.state, mic: audio.state };
}

async function one(
  devices: MediaDevices,
  wanted: MediaStreamConstraints,
): Promise<{ stream: MediaStream | undefined; state: DeviceState }> {
  try {
    return { stream: await devices.getUserMedia(wanted), state: "on" };
  } catch (error) {
    return { stream: undefined, state: reasonOf(error) };
  }
}

/** What the person chooses to show of this screen; undefined where they choose nothing, or the browser cannot. */
export async function captureScreen(devices: MediaDevices | undefined = navigator.mediaDevices): Promise<MediaStream | undefined> {
  try {
    return await devices?.getDisplayMedia({ video: { frameRate: { max: 15 } }, audio: false });
  } catch {
    return undefined;
  }
}

/** Switches one device of a capture on or off; a device that is not there stays as it is. */
export function switched(was: Capture, device: "camera" | "mic", on: boolean): Capture {
  const state = was[device];
  if (state !== "on" && state !== "off") return was;
  const tracks = device === "camera" ? was.stream?.getVideoTracks() : was.stream?.getAudioTracks();
  for (const track of tracks ?? []) track.enabled = on;
  return { ...was, [device]: on ? "on" : "off" };
}

export function release(was: Capture): void {
  for (const track of was.stream?.getTracks() ?? []) track.stop();
}
