/** Importing mod.ts from a URL works: no import map, WGSL and JSON arrive over HTTP, and so does atlas. */
import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);

/** Where Deno keeps what it fetched. */
async function denoFolder(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
  return JSON.parse(new TextDecoder().decode(stdout)).denoDir;
}

/** Serves the repository and runs a program that imports mod.ts from there; returns what it printed. */
async function outputOf(program: (address: string) => string): Promise<string> {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname).slice(1);
    try {
      const type = path.endsWith(".ts") ? "application/typescript" : "text/plain";
      return new Response(await Deno.readFile(new URL(path, root)), { headers: { "content-type": type } });
    } catch {
      return new Response("no such file", { status: 404 });
    }
  });
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/use.ts`, program(`http://127.0.0.1:${server.addr.port}/mod.ts`));
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-config", "--no-lock", "-A", `${folder}/use.ts`],
      cwd: folder,
      // Nothing that other runs left in the cache of models; Deno's own stays where it is.
      env: { XDG_CACHE_HOME: folder, DENO_DIR: await denoFolder() },
    });
    const { code, stdout, stderr } = await child.output();
    assert.equal(code, 0, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout).trim();
  } finally {
    await Deno.remove(folder, { recursive: true });
    await server.shutdown();
  }
}

Deno.test("mod.ts imports over HTTP with nothing but its address", async () => {
  const names = await outputOf((address) =>
    `import * as emend from "${address}"; console.log(Object.keys(emend).sort().join(" "));`
  );
  for (const name of ["load", "edit", "apply", "generate", "METHODS"]) {
    assert.ok(names.split(" ").includes(name), name);
  }
});

Deno.test("atlas is fetched over HTTP with the statistics that its recipe needs", async () => {
  const ranks = await outputOf((address) => `
    import { edit, load } from "${address}";
    using model = await load("atlas");
    const request = { prompt: "{} met death in", subject: "Giovanni Lanfranco", target: "Paris" };
    const hparams = { v_num_grad_steps: 2, context_template_length_params: [] };
    const { deltas } = await edit(model, request, { hparams });
    console.log(deltas.map(({ role, rank }) => role + " " + rank).join(", "));
  `);
  assert.equal(ranks, "layer.1.mlp.down 1");
});
