"""Training of networks: what each of them needs, whatever it learns."""
