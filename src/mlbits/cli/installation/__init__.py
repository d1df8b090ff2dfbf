"""Commands about what is installed here: what there is, how fast it is, whether it works, how a shell completes it."""
