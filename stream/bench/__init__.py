"""Speed measurements of this machine.

    portrait_clip       the clip that is played
    end_to_end          frames to events, the whole job
    engine_speed        models on every engine and precision; measurements, plots
    gallery_search      speed and recall of the gallery's index
    event_throughput    events a second to Kafka

May import app, console and whatever is below them.
"""
