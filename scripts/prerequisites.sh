# Sourced by scripts/setup: finds a Python and says what is missing, with the mend, before any long build starts.
# Written for bash 3.2 (macOS). Every check really tries the thing instead of looking for a package.

missing=()

mend() { # mend WHAT DEBIAN FEDORA MACOS: remember one missing thing and how to get it here
    local hint
    case "$(uname -s)" in
        Darwin) hint="$4" ;;
        *)
            if command -v apt-get >/dev/null 2>&1; then hint="sudo apt-get install $2"
            elif command -v dnf >/dev/null 2>&1; then hint="sudo dnf install $3"
            else hint="Debian/Ubuntu: apt-get install $2; Fedora: dnf install $3"; fi ;;
    esac
    missing+=("$1
        mend: $hint")
}

python_fits() { # python_fits COMMAND LOWEST_MINOR HIGHEST_MINOR
    "$1" -c "import sys; sys.exit(not (3, $2) <= sys.version_info[:2] <= (3, $3))" >/dev/null 2>&1
}

find_python() { # prints the Python to use; versions that every locked package has wheels for come first
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        if python_fits "$PYTHON" 11 99; then echo "$PYTHON"; fi
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if python_fits "$candidate" 11 13; then echo "$candidate"; return; fi
    done
    for candidate in python3.14 python3; do
        if python_fits "$candidate" 14 99; then echo "$candidate"; return; fi
    done
}

compiles() { # compiles COMPILER SUFFIX FLAGS...: can it compile and link the program on stdin?
    local compiler="$1" suffix="$2" scratch status=0
    shift 2
    command -v "$compiler" >/dev/null 2>&1 || return 1
    scratch="$(mktemp -d)"
    cat >"$scratch/probe.$suffix"
    (cd "$scratch" && "$compiler" "probe.$suffix" -o probe "$@" && ./probe) >/dev/null 2>&1 || status=1
    rm -rf "$scratch"
    return $status
}

check_python() {
    if [ -z "$python" ]; then
        mend "Python 3.11 or newer${PYTHON:+ (PYTHON=$PYTHON is older or does not run)}" \
            "python3.11 python3.11-venv python3.11-dev" "python3.11 python3.11-devel" "brew install python@3.12"
        return
    fi
    local version
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        mend "the venv module of $python" "python$version-venv" "python3-libs" "brew reinstall python@$version"
    "$python" -c 'import os, sysconfig as s; open(os.path.join(s.get_paths()["include"], "Python.h")).close()' \
        >/dev/null 2>&1 ||
        mend "the C headers of $python (Python.h)" "python$version-dev" "python3-devel" "brew reinstall python@$version"
}

check_compilers() {
    echo 'int main(void) { return 0; }' | compiles "${CC:-cc}" c ||
        mend "a C compiler (${CC:-cc} does not build a program)" "build-essential" "gcc gcc-c++" "xcode-select --install"
    printf '%s\n' '#include <optional>' 'int main() { std::optional<int> zero{0}; return *zero; }' |
        compiles "${CXX:-c++}" cpp -std=c++17 ||
        mend "a C++17 compiler (${CXX:-c++} does not build a C++17 program)" \
            "build-essential" "gcc gcc-c++" "xcode-select --install"
    if command -v brew >/dev/null 2>&1; then # Homebrew's folder is not on the compiler's default path
        CPATH="$(brew --prefix)/include${CPATH:+:$CPATH}"
        LIBRARY_PATH="$(brew --prefix)/lib${LIBRARY_PATH:+:$LIBRARY_PATH}"
        export CPATH LIBRARY_PATH
    fi
    printf '%s\n' '#include <gmp.h>' 'int main(void) { mpz_t n; mpz_init(n); return (int) mpz_get_ui(n); }' |
        compiles "${CC:-cc}" c -lgmp ||
        mend "the GMP library with its header (gmp.h)" "libgmp-dev" "gmp-devel" "brew install gmp"
}

check_space() { # check_space FOLDER MEBIBYTES WHAT
    local free_mib
    free_mib="$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }')"
    [ "$free_mib" -ge "$2" ] ||
        missing+=("$2 MiB of free disk space in $1 for $3 (there are $free_mib)
        mend: make room, or point TMPDIR at a larger disk")
}

check_prerequisites() { # sets $python; stops with the full list when anything is missing
    python="$(find_python)"
    check_python
    check_compilers
    check_space . 1200 "the virtual environment"
    check_space "${TMPDIR:-/tmp}" 1200 "compiling llama.cpp"
    [ ${#missing[@]} -eq 0 ] && return
    echo "ryvion-node cannot be set up yet. Missing:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
}
