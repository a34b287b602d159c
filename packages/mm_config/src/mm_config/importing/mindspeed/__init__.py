"""MindSpeed-MM's configurations as experiments, with a report on what each of their keys did."""
