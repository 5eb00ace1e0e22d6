/**
 * atlas, the embedded model: where its files are. Run from a checkout it is a folder; imported from a URL its
 * files are fetched once into the user's cache.
 */
import { writeFolderAtomic } from "../engine/io/atomic.ts";
import { cacheFolder } from "../engine/io/cache.ts";

const FILES = [
  "config.json",
  "model.safetensors",
  "tokenizer.json",
  "tokenizer_config.json",
  "statistics/layer-0.safetensors",
  "statistics/layer-1.safetensors",
];

/** The model's folder on this machine. */
export async function atlasFolder(): Promise<string> {
  const url = new URL("./model/", import.meta.url);
  if (url.protocol === "file:") return decodeURIComponent(url.pathname).replace(/\/$/, "");
  const folder = `${cacheFolder()}/atlas-with-statistics`;
  if (await Deno.stat(folder).catch(() => undefined)) return folder;
  await Deno.mkdir(cacheFolder(), { recursive: true });
  await writeFolderAtomic(folder, async (temporary) => {
    await Deno.mkdir(`${temporary}/statistics`);
    for (const name of FILES) {
      const response = await fetch(new URL(name, url));
      if (!response.ok) throw new Error(`Cannot fetch ${name} of atlas: HTTP ${response.status}`);
      await Deno.writeFile(`${temporary}/${name}`, new Uint8Array(await response.arrayBuffer()));
    }
  });
  return folder;
}

/** A file of atlas' fact table and evaluation sets. */
export async function atlasData(name: string): Promise<string> {
  const url = new URL(`./data/${name}`, import.meta.url);
  if (url.protocol === "file:") return await Deno.readTextFile(url);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`Cannot fetch ${name} of atlas: HTTP ${response.status}`);
  return await response.text();
}
