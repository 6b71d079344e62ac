"""Builds the two chat models that ship with the node: corpus, tokenizer, network, training, export, evaluation."""
