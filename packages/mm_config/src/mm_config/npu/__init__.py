"""An Ascend NPU's environment: variables and their text forms, what is advised, versions that go together."""
