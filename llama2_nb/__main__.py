"`python -m llama2_nb`: the command `llama2-nb`."

from llama2_nb.cli import main

if __name__ == "__main__":
    main()
