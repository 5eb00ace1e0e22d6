/**
 * Random access to the bytes of one file, so that every reader works on a path, on bytes in memory
 * (tests, embedded models) or on anything else that can serve byte ranges.
 */
import { InputError } from "./errors.ts";

/** Bytes that can be read by range. `size` is in bytes and fixed when the source is opened. */
export interface ByteSource {
  /** A file path or a label; used in error messages. */
  readonly name: string;
  readonly size: number;
  /**
   * Exactly `length` bytes from `offset`. The result may be a view of shared memory: don't write to it.
   * @throws InputError when the range passes the end of the file
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  close(): void;
}

/**
 * Opens a file for reading.
 * @throws InputError when it is missing, not a regular file, or unreadable
 */
export async function openFile(path: string): Promise<ByteSource> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true });
  } catch (error) {
    throw unreadable(path, error);
  }
  const info = await file.stat();
  if (!info.isFile) {
    file.close();
    throw new InputError(`Cannot read ${path}: it is not a file`);
  }
  const size = info.size;
  // One file has one position, so reads take turns.
  let turn: Promise<unknown> = Promise.resolve();
  let closed = false;

  async function readNow(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await file.seek(offset, Deno.SeekMode.Start);
    let filled = 0;
    while (filled < length) {
      const got = await file.read(bytes.subarray(filled));
      if (got === null) {
        throw new InputError(
          `${path} ended at byte ${offset + filled}; it was ${size} bytes long when opened`,
        );
      }
      filled += got;
    }
    return bytes;
  }

  return {
    name: path,
    size,
    read(offset, length) {
      checkRange(path, size, offset, length);
      const result = turn.then(() => readNow(offset, length));
      turn = result.catch(() => {});
      return result;
    },
    close() {
      if (!closed) file.close();
      closed = true;
    },
  };
}

/** A source over bytes in memory. `read` returns views, not copies. */
export function fromBytes(name: string, bytes: Uint8Array): ByteSource {
  return {
    name,
    size: bytes.length,
    // `async` so that a range error arrives as a rejection, as it does from a file.
    // deno-lint-ignore require-await
    async read(offset, length) {
      checkRange(name, bytes.length, offset, length);
      return bytes.subarray(offset, offset + length);
    },
    close() {},
  };
}

/** Reads a whole text file as UTF-8. @throws InputError when missing or unreadable */
export async function readText(path: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

function checkRange(name: string, size: number, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!whole || offset + length > size) {
    throw new InputError(
      `Cannot read bytes ${offset} to ${offset + length} of ${name}: it has ${size} bytes`,
    );
  }
}

function unreadable(path: string, error: unknown): InputError {
  if (error instanceof Deno.errors.NotFound) return new InputError(`No such file: ${path}`, { cause: error });
  const reason = error instanceof Error ? error.message : String(error);
  return new InputError(`Cannot read ${path}: ${reason}`, { cause: error });
}
