"""Topologies decide how a draft branches."""
