"""What guidance costs per token, beside plain decoding and transformers' own guidance."""
