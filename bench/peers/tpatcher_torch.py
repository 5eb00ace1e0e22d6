"""T-Patcher's edit of one example in PyTorch: the peer of our T-Patcher bench.

    python bench/peers/tpatcher_torch.py --gguf FILE --code DIR --numbers FILE [--threads 2]

DIR is a checkout of ZeroYuHuang/Transformer-Patcher; FILE has the memories and v0. The first line of output says which
PyTorch it is; then a line of JSON for a line of JSON: {"task": "cached"|"full", "prompt": ids, "target": ids, "steps":
n, "every": n, "hparams": {…}} -> seconds, CPU seconds, and the three losses before each step. `full` is the authors'
editor as it is: eight copies of the example through the whole model at every step. `cached` reads the last layer's
input and the stream behind it once, as we do, and has one copy.
"""

import argparse
import json
import sys
import types
from pathlib import Path
from time import perf_counter, process_time

import threads  # noqa: F401, before torch
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from smollm2 import load
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "fixtures"))
import t_patcher as fixtures  # noqa: E402


class Decoder(nn.Module):
    """SmolLM2 as the authors' editor calls its model; see the fixtures."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.hparams = types.SimpleNamespace(eps=0.0)
        self.tokenizer = types.SimpleNamespace(pad_token_id=-1)

    def forward(self, prompt, _mask, answer, _answer_mask):
        h = self.model.model(input_ids=torch.cat([prompt[:, :-1], answer], 1)).last_hidden_state
        return self.model.lm_head(h[:, prompt.shape[1] - 1:])


def optimiser(params, h):
    adam = torch.optim.Adam(params, lr=h["lr"], weight_decay=h["weight_decay"])
    return adam, ReduceLROnPlateau(adam, mode="min", factor=h["lr_scheduler_factor"], patience=1, threshold=0.05)


def loop(task, params, terms, look):
    """Steps with a look after every few, which ends nothing here: all runs take the same steps."""
    h, losses = task["hparams"], []
    adam, plateau = optimiser(params, h)
    for step in range(task["steps"]):
        l_e, l_a, l_m = terms()
        adam.zero_grad()
        (l_e + h["alc"] * l_a + h["mlc"] * l_m).backward()
        losses.append([l_e.detach(), h["alc"] * l_a.detach(), h["mlc"] * l_m.detach()])
        nn.utils.clip_grad_norm_(params, h["clip"])
        adam.step()
        if (step + 1) % task["every"] == 0:
            with torch.no_grad():
                plateau.step(look())
    return [[x.item() for x in row] for row in losses]


def cached(model, numbers, task):
    """One copy, everything below the patches once, scored rows only."""
    h, prompt, target = task["hparams"], task["prompt"], task["target"]
    block, read = model.model.layers[-1].mlp, []
    hooks = [block.register_forward_hook(lambda m, a, o: read.append(a[0])),
             model.model.norm.register_forward_pre_hook(lambda m, a: read.append(a[0]))]
    with torch.no_grad():
        model.model(input_ids=torch.tensor([prompt + target[:-1]]))
        for hook in hooks:
            hook.remove()
        q, stream = (x[0, len(prompt) - 1:] for x in read)
        wanted = torch.tensor(target)
        wrong = (model.lm_head(model.model.norm(stream)).argmax(-1) != wanted).nonzero()[:, 0]
        own = q[wrong[:h["max_add_neuron_num"]]]
    keys = nn.Parameter(own / own.norm(dim=-1, keepdim=True) ** 2)
    bias = nn.Parameter(fixtures.APART * torch.arange(len(own)))
    values = nn.Parameter(numbers["v0"].clone())
    alpha = nn.Parameter(torch.full_like(values, h["amplify_con"]))

    def terms(memory):
        z = torch.relu(F.linear(q, keys, bias))
        logits = model.lm_head(model.model.norm(stream + z @ (values * alpha)))
        a = F.linear(own, keys, bias).diagonal()
        m = F.linear(memory, keys, bias)
        largest = [x.flatten().topk(min(125, x.numel()))[0].exp().mean()
                   for x in (m - a + h["margin_val1"], m - h["margin_val2"])]
        return F.cross_entropy(logits, wanted), torch.exp(-a).max(), sum(largest), logits

    def look():
        l_e, _, _, logits = terms(numbers["validate"])
        logits.argmax(-1).tolist()
        return l_e

    return loop(task, [keys, bias, values, alpha], lambda: terms(numbers["train"])[:3], look)


def full(code, model, numbers, task):
    """The authors' editor on eight copies."""
    h, prompt, target = task["hparams"], task["prompt"], task["target"]
    block = model.model.layers[-1]
    bare = block.mlp
    block.mlp = fixtures.Beside(bare, model.config.hidden_size)
    decoder = Decoder(model)
    at = f"model.model.layers.{len(model.model.layers) - 1}.mlp"
    # Their constructor copies the model twice, which is no part of an edit.
    editor = code.Editor(nn.Linear(1, 1), hidden_size=model.config.hidden_size, max_add_neuron_num=h["max_add_neuron_num"],
                         activate_loss="top5_exp", memory_loss="top1000_exp+top1000_exp", amplify_v=True,
                         amplify_con=h["amplify_con"])
    editor.model = decoder
    for p in decoder.parameters():
        p.requires_grad = False
    editor.get_named_modules()
    editor.name_edit_type = {f"{at}.fc1": "output", f"{at}.fc2": "input"}
    editor.train_memories, editor.val_memories = ({f"{at}.fc1": numbers[part]} for part in ["train", "validate"])
    start, cpu = perf_counter(), process_time()
    src, trg = torch.tensor([prompt]), torch.tensor([[prompt[-1], *target]])
    editor.get_detectors(detected_modules={at: "fc1"}, memory_loc="bart_seq", hidden_loc="bart_seq")
    editor.set_detectors()
    editor.unlock_hidden_detectors()
    with torch.no_grad():
        predicted = editor.model(src, None, trg[:, :-1], None).argmax(-1)
    wrong = [i for i, s in enumerate((predicted != trg[:, 1:]).squeeze(0)) if s][:h["max_add_neuron_num"]]
    select = [len(prompt) - 1 + i for i in wrong]
    init = editor.get_hidden(select)
    editor.clear_detectors()
    editor.set_editors(init_weights=init, error_count=len(wrong), select_index=select)
    keys, values = (e["editor"] for e in editor.editors)
    keys.margin_val1, keys.margin_val2 = h["margin_val1"], h["margin_val2"]
    values.extra_input.data.copy_(numbers["v0"].T)
    keys.extra_output.bias.data += fixtures.APART * torch.arange(len(wrong))
    src, trg = src.repeat(fixtures.COPIES, 1), trg.repeat(fixtures.COPIES, 1)
    mask = torch.ones_like(trg)
    params = [p for p in editor.model.parameters() if p.requires_grad]

    def terms():
        editor.train()
        res = editor(src, None, trg, mask)
        return res["loss"], res["act_loss"], res["memo_loss"]

    def look():
        editor.eval()
        res = editor(src, None, trg, mask)
        res["logtis"].argmax(-1).tolist()
        return res["loss"]

    losses = loop(task, params, terms, look)
    spent = perf_counter() - start, process_time() - cpu
    block.mlp = bare
    return losses, spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--code", required=True)
    parser.add_argument("--numbers", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    code = fixtures.authors(args.code)
    model, _ = load(args.gguf)
    numbers = load_file(args.numbers)
    print(json.dumps(dict(torch=torch.__version__)), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        start, cpu = perf_counter(), process_time()
        if task["task"] == "cached":
            losses = cached(model, numbers, task)
            spent = perf_counter() - start, process_time() - cpu
        else:
            losses, spent = full(code, model, numbers, task)
        print(json.dumps(dict(seconds=spent[0], cpu_seconds=spent[1], losses=losses)), flush=True)


if __name__ == "__main__":
    main()
