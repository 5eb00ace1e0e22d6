/** Seconds of benches beside a peer. */
import { cpuUsage } from "node:process";

/** Seconds by the clock, and of the processors over their number: what an idle machine would need. */
export interface Time {
  wall: number;
  busy: number;
}

/** What the peers' scripts answer with. */
export interface PeerSeconds {
  seconds: number;
  cpu_seconds: number;
}

export async function timed<T>(threads: number, work: () => Promise<T>): Promise<{ made: T; time: Time }> {
  const start = performance.now(), before = cpuUsage();
  const made = await work();
  const { user, system } = cpuUsage(before);
  return { made, time: { wall: (performance.now() - start) / 1e3, busy: (user + system) / 1e6 / threads } };
}

export function peerTime({ seconds, cpu_seconds }: PeerSeconds, threads: number): Time {
  return { wall: seconds, busy: cpu_seconds / threads };
}

/** The middle one, of both columns. */
export function median(times: readonly Time[]): Time {
  const middle = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];
  return { wall: middle(times.map(({ wall }) => wall)), busy: middle(times.map(({ busy }) => busy)) };
}
