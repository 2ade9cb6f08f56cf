"""Vergence: train vision-language models to look, by comparing what they say under several views of the same image."""
