"""Is a decoder's output law the target's law?"""
