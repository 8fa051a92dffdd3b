"""The embedded visual world: captioned pictures of coloured shapes, and rules that judge them."""
