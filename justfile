# Short names for what the scripts do; the scripts are the truth. `just` lists them.

default:
    @just --list

# installs what is missing
setup:
    ./scripts/setup

# two cameras, a model, a broker
demo *arguments:
    ./scripts/demo {{arguments}}

# format, lints, licences, all tests
test *arguments:
    ./scripts/test {{arguments}}

# formats everything
fmt:
    cargo fmt --all

# the demo in a clean Debian 12 (root)
clean-room:
    ./scripts/tools/clean-room

# watchpost and the Python peers in turn
peers model *arguments:
    .peers/bin/python benches/peers/compare --model {{model}} {{arguments}}
