"""From settings to a running job. The only room that reads settings and the environment.

    yaml_reader     strict YAML, and ``${NAME}`` from the environment
    config_errors   what is wrong with a file, in words
    settings        checked, frozen settings
    preflight       what a command needs, checked before it begins
    wiring          settings become plain arguments; parts are opened
    main_loop       one run: the pipeline's batches to the sinks
    metrics         Prometheus

May import pipeline and whatever is below it; never console.
"""
