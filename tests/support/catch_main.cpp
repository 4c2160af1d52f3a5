// Catch2 2 needs a main of ours; with Catch2 3 its Catch2WithMain is linked and this is empty.
#if PI0_CATCH2_MAJOR < 3
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif
