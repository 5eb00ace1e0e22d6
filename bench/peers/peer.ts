/** A peer of our benches: a Python script that stays open and answers a line of JSON with a line of JSON. */

export class Peer {
  #child: Deno.ChildProcess;
  #lines: AsyncIterator<string>;
  #input: WritableStreamDefaultWriter<Uint8Array>;

  /** @param script a file beside this one */
  constructor(python: string, script: string, args: readonly string[]) {
    const path = new URL(script, import.meta.url).pathname;
    const streams = { stdin: "piped", stdout: "piped", stderr: "inherit" } as const;
    this.#child = new Deno.Command(python, { args: [path, ...args], ...streams }).spawn();
    this.#lines = linesOf(this.#child.stdout);
    this.#input = this.#child.stdin.getWriter();
  }

  /** The next line. @throws {Error} when there is none any more */
  async read<T>(): Promise<T> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("The peer failed");
    return JSON.parse(value);
  }

  /** The answer to a task. */
  async ask<T>(task: unknown): Promise<T> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify(task) + "\n"));
    return await this.read();
  }

  async close(): Promise<void> {
    await this.#input.close();
    await this.#child.status;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}
