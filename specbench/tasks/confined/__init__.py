"""The inside of the sandbox: code that runs in the sandbox's own interpreter.

Nothing here may import anything outside the standard library or this folder: the sandbox starts
a bare interpreter without site packages, and every import costs each scored answer its time.
"""
