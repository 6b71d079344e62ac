"""A BERT-style embedding model with random weights: word pieces, [CLS] and [SEP], no cache, first-token pooling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, LlamaFileType, PoolingType, TokenType

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581when", "\u2581does", "\u2581the", "\u2581ferry", "\u2581leave", "s")
CONTEXT = 64
WIDTH = 32


def write_random_bert(path: Path, pooling: PoolingType = PoolingType.CLS) -> None:
    """One layer; the same bytes every time."""
    writer = GGUFWriter(path, "bert")
    writer.add_name("random-bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(WORDS)
    writer.add_token_types([TokenType.CONTROL] * 4 + [TokenType.NORMAL] * (len(WORDS) - 4))
    writer.add_token_type_count(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    random = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape, np.float32))

    add("token_embd.weight", len(WORDS), WIDTH)
    add("position_embd.weight", CONTEXT, WIDTH)
    add("token_types.weight", 2, WIDTH)
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        add(f"{norm}.weight", WIDTH)
        add(f"{norm}.bias", WIDTH)
    for name, rows, columns in (
        *((f"attn_{part}", WIDTH, WIDTH) for part in ("q", "k", "v", "output")),
        ("ffn_up", 2 * WIDTH, WIDTH),
        ("ffn_down", WIDTH, 2 * WIDTH),
    ):
        add(f"blk.0.{name}.weight", rows, columns)
        add(f"blk.0.{name}.bias", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
