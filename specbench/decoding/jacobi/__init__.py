"""Parts of speculative Jacobi decoding: couplings, initial guesses and acceptance rules.

The loop is `specbench.decoding.loops.speculative_jacobi.SpeculativeJacobi`; a method of the
family names one part of each kind.
"""
