"""Random checkpoints of the Chameleon family, written in the published format."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import ChameleonConfig, ChameleonForConditionalGeneration, PreTrainedTokenizerFast

from specbench.models.vqgan import Vqgan, VqganConfig
from specbench.schema.model import ModelConfig

CODES, FIRST = 24, 4
BEGIN, END, ROW_END, SIZE, TURN = 28, 29, 30, 31, 32
WORDS = ("a", "red", "blue", "circle", "left", "of")
VOCAB = 48
ROWS, COLUMNS = 3, 4
NUMBERS = torch.randperm(CODES, generator=torch.Generator().manual_seed(7)).tolist()
"""The image tokenizer's number of each code, in the order of token ids."""

LAYOUT = {
    "grid": {"rows": ROWS, "columns": COLUMNS, "row_end": ROW_END, "ending": [END, TURN]},
    "first_code": FIRST,
    "codes": CODES,
    "prompt": [0, "a {caption}", TURN, BEGIN, SIZE, SIZE],
    "unconditional": [BEGIN, SIZE, SIZE],
    "image_conditional": [0, BEGIN, SIZE, SIZE],
}
VQ = {
    "embed_dim": 6,
    "num_embeddings": CODES,
    "latent_channels": 6,
    "resolution": 8,
    "base_channels": 32,
    "channel_multiplier": [1, 1],
    "num_res_blocks": 1,
}


def vocabulary():
    """Return ids by name, in the form of the published vocabulary."""
    names = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for index, number in enumerate(NUMBERS):
        letters = "".join(chr(ord("A") + int(digit)) for digit in str(number))
        names[f"IMGIMG{letters}Z"] = FIRST + index
    special = ["<racm3:break>", "<eoss>", "<reserved08799>", "<reserved08800>", "<reserved08706>"]
    for name in (*special, *WORDS):
        names[name] = len(names)
    assert names["<reserved08706>"] == TURN
    return names


def vqgan(seed=3):
    """Return a random image tokenizer."""
    torch.manual_seed(seed)
    return Vqgan(
        VqganConfig(
            channels=32,
            multipliers=(1, 1),
            blocks=1,
            resolution=8,
            latent_channels=6,
            codes=CODES,
            code_width=6,
        )
    ).eval()


def write(folder, seed=0, layers=2):
    """Write a random Chameleon with the encoder's half of its image tokenizer, as published."""
    torch.manual_seed(seed)
    names = vocabulary()
    config = ChameleonConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.5,
        vocabulary_map=names,
        vq_config=VQ,
    )
    module = ChameleonForConditionalGeneration(config)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 or "_norm" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    module.model.vqmodel.load_state_dict(vqgan().state_dict(), strict=False)
    module.save_pretrained(folder)
    inner = Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return folder


def entry(folder, **keys):
    """Return the model entry of a folder, computed in float64."""
    return ModelConfig.from_dict(
        {
            "name": "toy",
            "title": "Toy",
            "modality": "image",
            "loader": {"_target_": "specbench.models.chameleon.load"},
            "target": str(folder),
            "dtype": "float64",
            "device": "cpu",
            **keys,
        }
    )


def logits_of(module, tokens):
    """Transformers' logits before its class forbids the codes, [T, V]."""
    with torch.inference_mode():
        return module.lm_head(module.model(torch.tensor([tokens])).last_hidden_state)[0]


def close(left, right):
    """Transformers' norms and rotary angles are float32: agreement ends near 1e-5."""
    torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


CAPTION = "red circle left of a blue circle"
TOKENS = [5, 9, 4, 27, ROW_END, 6, 6, 20, 13, ROW_END, 11, 8, 17, 26, ROW_END, END]
